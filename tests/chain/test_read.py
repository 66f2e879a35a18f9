"""Tests that the command and a notebook read the rows that a file has published, but not rows that were replaced or
withdrawn."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployment.commands import SafeConsole
from deployment.commands.read import read
from deployment.local.pipeline import STACK_NAME
from flows.pipeline.receipt import Status
from flows.published import read_table
from flows.published.rows import RUN_ID, SOURCE_KEY, Selection
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import good_orders

pytestmark = [pytest.mark.cloud, pytest.mark.usefixtures("worker")]
KEY = "incoming/orders/read.csv"
NO_ROWS = {"expectations": [{"expect_table_row_count_to_equal": {"value": 0, "severity": "critical"}}]}


def read_in_notebook(chain: Chain) -> pa.Table:
    """Return the rows of the test's file, read as in a notebook, where a cell runs inside an event loop."""

    async def cell() -> pa.Table:
        return read_table("orders", stack=STACK_NAME, with_source=True)

    with temporary_settings({PREFECT_API_URL: chain.cloud.endpoints.prefect_api_url}):
        table = asyncio.run(cell())
    return table.filter(pc.equal(table[SOURCE_KEY], KEY))


def has_attempt(chain: Chain, upload: UploadMessage, attempt: int) -> bool:
    return chain.has_receipt(upload) and chain.receipt(upload).attempt == attempt


def processed(chain: Chain, rows: int) -> UploadMessage:
    upload = chain.upload(KEY, good_orders(rows))
    chain.wait_for(lambda: has_attempt(chain, upload, 0), "the receipt")
    chain.settle()
    return upload


def test_only_the_rows_of_the_last_upload_are_read_and_none_when_a_rerun_rejects_it(
    chain: Chain, tmp_path: Path
) -> None:
    first = processed(chain, 5)
    assert set(read_in_notebook(chain)[RUN_ID].to_pylist()) == {first.run_id}

    second = processed(chain, 3)
    table = read_in_notebook(chain)
    assert (table.num_rows, set(table[RUN_ID].to_pylist())) == (3, {second.run_id})

    output, path = io.StringIO(), tmp_path / "orders.parquet"
    selection = Selection(run=second.run_id[:12], with_source=True)
    assert read(SafeConsole(file=output), chain.cloud.endpoints, "orders", selection, path)
    assert output.getvalue().startswith("wrote 3 of 3 rows")
    assert pq.read_table(path).to_pylist() == table.to_pylist()

    chain.run_by_hand(key=KEY, force=True, contract=NO_ROWS)
    assert chain.receipt(second).status is Status.REJECTED
    assert read_in_notebook(chain).num_rows == 0
