"""No log of the chain holds a value of the data, and every line of the container says where it belongs.

Receipts and Prefect's artifacts may show what GX observes of a whole column (a row count, a minimum, a fraction), the
names of columns and files, and row numbers; never the value of a row. Quarantine files hold the bad rows themselves.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import good_orders, order, orders

pytestmark = pytest.mark.cloud

SECRET = "s3cr3tXyzzy"


def planted() -> dict[str, bytes]:
    """Files with the secret in every place that an error message might quote from."""
    good, bad = order(1, sku=SECRET), order(2, sku=SECRET, quantity=0)
    return {
        "orders/good-and-bad.csv": orders(*(order(number) for number in range(3, 13)), good, bad),
        "orders/no-number.csv": orders(*(order(number) for number in range(3, 13)), order(1, unit_price=SECRET)),
        "orders/fails.csv": orders(order(1, country=SECRET), order(2, customer_id=SECRET)),
        "orders/ragged.csv": good_orders(9) + f"{SECRET},{SECRET}\n".encode(),
        "orders/quote.csv": good_orders(2) + f'"{SECRET}\n'.encode(),
        "things/undecodable.csv": b"name,town\nA,B\n" + SECRET.encode() + b"\xff\xfe\x81,C\n",
        "things/broken.json": b'[{"a": "' + SECRET.encode() + b'"}, {"a": ' + SECRET.encode() + b"}]",
        "things/broken.xlsx": b"PK\x03\x04" + SECRET.encode() * 20,
        "things/not-a-table.bin": bytes(range(256)) + SECRET.encode(),
    }


@pytest.fixture(scope="module")
def uploads(chain: Chain) -> list[UploadMessage]:
    """Every file with the secret, when all of them are through the chain."""
    sent = [chain.upload(f"incoming/{name}", body) for name, body in planted().items()]
    for upload in sent:
        chain.ended(upload, 180)
    chain.settle()
    return sent


def everything_in(chain: Chain, group: str) -> list[str]:
    """The raw lines of a log group."""
    pages = chain.cloud.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
    return [event["message"] for page in pages for event in page["events"]]


def log_group(chain: Chain, part: str) -> str:
    """The name of a part's log group."""
    groups = chain.cloud.client("logs").describe_log_groups(logGroupNamePrefix="/sluice/")["logGroups"]
    (name,) = [group["logGroupName"] for group in groups if group["logGroupName"].endswith(f"/{part}")]
    return str(name)


def said_by_prefect(chain: Chain, what: str) -> str:
    """All of Prefect's logs, states or artifacts as text."""
    pages: list[Any] = []
    while True:
        answer = httpx.post(
            f"{chain.cloud.prefect_api_url}/{what}/filter", json={"limit": 200, "offset": 200 * len(pages)}, timeout=30
        )
        answer.raise_for_status()
        pages.append(answer.json())
        if len(pages[-1]) < 200:
            return json.dumps(pages)


@pytest.mark.usefixtures("uploads")
def test_no_log_group_holds_a_value_of_the_data(chain: Chain) -> None:
    groups = [group["logGroupName"] for group in chain.cloud.client("logs").describe_log_groups()["logGroups"]]
    lines = {group: "\n".join(everything_in(chain, group)) for group in groups}
    assert any(lines.values())
    assert [group for group, text in lines.items() if SECRET in text] == []


@pytest.mark.usefixtures("uploads")
@pytest.mark.parametrize("what", ["logs", "flow_runs", "task_runs", "artifacts"])
def test_prefect_shows_no_value_of_the_data(chain: Chain, what: str) -> None:
    said = said_by_prefect(chain, what)
    assert len(said) > 1000
    assert SECRET not in said


def test_no_history_of_an_execution_holds_a_value_of_the_data(chain: Chain, uploads: list[UploadMessage]) -> None:
    for upload in uploads:
        execution = chain.execution(upload)
        assert execution is not None
        events = chain.step_functions.get_execution_history(executionArn=execution["executionArn"])["events"]
        assert SECRET not in json.dumps([execution, events], default=str)


def test_no_receipt_holds_a_value_of_a_row(chain: Chain, uploads: list[UploadMessage]) -> None:
    assert [upload.key for upload in uploads if SECRET in chain.receipt(upload).to_json()] == []


def test_every_line_of_the_container_is_json_and_each_stage_says_how_long_it_took(
    chain: Chain, uploads: list[UploadMessage]
) -> None:
    lines = [json.loads(line) for line in everything_in(chain, log_group(chain, "task"))]
    assert all({"time", "level", "logger", "event"} <= set(line) for line in lines)
    (good, *_) = uploads
    stages = [line for line in lines if line.get("run_id") == good.run_id and line["event"] == "stage done"]
    assert {line["stage"] for line in stages} == {"fetch", "validate", "refine", "publish", "record"}
    assert all(line["dataset"] == "orders" and line["seconds"] >= 0 for line in stages)
