"""Tests that reconcile, with its own role, rebuilds the index and Prefect's flow runs from the receipts after both were
lost."""

from __future__ import annotations

from functools import partial

import pytest

from flows.pipeline.protocol import index_key
from flows.published import read_table
from flows.published.current import NothingProcessed
from tests.chain.chain import NAMES, Chain
from tests.chain.files import good_orders

pytestmark = [pytest.mark.cloud, pytest.mark.usefixtures("worker")]


def test_the_index_and_the_runs_in_prefect_are_rebuilt_from_receipts(chain: Chain) -> None:
    upload = chain.upload("incoming/orders/rebuilt.csv", good_orders(3))
    receipt = chain.done(upload)
    chain.settle()
    published = chain.outputs["PublishedBucket"]
    for key in chain.keys("index/orders/"):
        chain.s3.delete_object(Bucket=published, Key=key)
    (lost,) = chain.flow_runs(receipt)
    chain.call_prefect("DELETE", f"/flow_runs/{lost['id']}")
    with pytest.raises(NothingProcessed):
        read_table("orders", bucket=published, client=chain.s3)

    run_id = chain.schedule(deployment=NAMES.deployment("reconcile"), rebuild=True, grace_minutes=0)
    run = chain.wait_for(partial(chain.final, run_id), "the run to end")

    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert index_key("orders", upload.bucket, upload.key) in chain.keys("index/orders/")
    assert read_table("orders", bucket=published, client=chain.s3, run=upload.run_id).num_rows == 3
    (shown,) = chain.flow_runs(receipt)
    assert shown["id"] != lost["id"]
    assert shown["state_type"] == "COMPLETED"
    assert {"recorded", "published", "orders"} <= set(shown["tags"])
