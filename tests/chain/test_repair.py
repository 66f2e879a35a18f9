"""Tests that the quarantined rows of a file can be corrected and published with the command."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from deployment.commands.repair import repair
from flows.pipeline.data_docs import read_index
from flows.pipeline.receipt import Status
from tests.chain.chain import Chain
from tests.chain.files import order, orders

pytestmark = pytest.mark.cloud


def test_a_repaired_file_gives_the_same_rows_as_a_clean_one_and_each_result_has_a_page(
    chain: Chain, tmp_path: Path
) -> None:
    lines = [order(number) for number in range(1, 9)]
    clean = chain.upload("incoming/orders/repair-clean.csv", orders(*lines))
    dirty = chain.upload(
        "incoming/orders/repair-dirty.csv", orders(*lines[:3], order(4, unit_price="cheap"), *lines[4:])
    )
    chain.done(clean), chain.done(dirty)
    before = chain.receipt(dirty)
    assert before.rows.quarantined_total == 1
    quarantine = chain.quarantined(before).assign(unit_price="9.50")
    quarantine.to_parquet(tmp_path / f"{dirty.run_id}.parquet")

    chain.cloud.mark_ready()
    repaired = repair(Console(quiet=True), chain.cloud.endpoints, tmp_path / f"{dirty.run_id}.parquet", None)

    assert repaired
    assert chain.receipt(dirty) == repaired
    assert (repaired.status, repaired.attempt, repaired.rows) == (Status.PUBLISHED, 1, chain.receipt(clean).rows)
    pd.testing.assert_frame_equal(chain.published(repaired), chain.published(chain.receipt(clean)))

    (run,) = chain.flow_runs(repaired)
    assert (run["state_name"], run["id"]) == ("Completed", repaired.chain.flow_run_id)
    assert {"repair", "orders", "published"} <= set(run["tags"])

    # The task wrote the first page with the permissions of its role, and the command wrote the second page.
    pages = chain.keys("docs/orders/")
    assert {before.docs_page, repaired.docs_page} <= set(pages)
    index = chain.s3.get_object(Bucket=chain.outputs["PublishedBucket"], Key="docs/orders/index.html")["Body"].read()
    listed = {f"docs/orders/{entry.page}" for entry in read_index(index.decode(), "orders").entries}
    assert {before.docs_page, repaired.docs_page} <= listed
    chain.settle()
