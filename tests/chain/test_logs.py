"""Tests that no log of the pipeline contains a value from the data, and that every line of the container identifies its
upload.

Receipts and Prefect's artifacts may contain the names of columns and files, row numbers, and what Great Expectations
observes about a whole column, such as a row count, a fraction or the minimum, which is itself a value. They contain no
other values from the data. Quarantine files contain the bad rows themselves.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blocks.settings import CONTRACTS
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import HEADER, good_orders, order, orders

pytestmark = pytest.mark.cloud

SECRET = "s3cr3tXyzzy"


def planted() -> dict[str, bytes]:
    """Return files with the secret at positions that an error message might quote."""
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
        # Files with rows instead of a header, and one with a second header among its rows.
        "orders/no-header.csv": "\n".join(order(number, sku=SECRET) for number in range(1, 4)).encode(),
        "things/header-like.csv": f"{SECRET},{SECRET}\n{SECRET},{SECRET}\n".encode(),
        "orders/header-again.csv": good_orders(3) + f"{HEADER}\n".encode() + order(4, sku=SECRET).encode(),
        # The custom step of this contract outputs its data (_CHATTY_STEPS) and then raises an error.
        "chatty/raises.csv": f"name,note\nA,{SECRET}\n".encode(),
    }


_CHATTY_CONTRACT = """\
dataset: chatty
source: incoming/chatty/**
columns:
  name: {type: string}
  note: {type: string}
preprocess:
  - steps.output_all
"""
_CHATTY_STEPS = """\
import sys
import warnings

import pandas as pd


def output_all(frame: pd.DataFrame) -> pd.DataFrame:
    output = ", ".join(frame["note"])
    print(output)
    print(output, file=sys.stderr)
    warnings.warn(output)
    raise ValueError(f"cannot do this with {output}")
"""


def contracts_with_a_chatty_step(folder: Path) -> Path:
    """Copy the project's contracts, and add one with a step that prints its data, warns about it and raises it. Return
    the folder."""
    shutil.copytree(CONTRACTS, folder)
    (folder / "chatty").mkdir()
    (folder / "chatty" / "contract.yaml").write_text(_CHATTY_CONTRACT)
    (folder / "chatty" / "steps.py").write_text(_CHATTY_STEPS)
    return folder


@pytest.fixture(scope="module")
def uploads(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> list[UploadMessage]:
    """Process every file that contains the secret, and send an event that the Lambda cannot read. Return the
    uploads."""
    folder = contracts_with_a_chatty_step(tmp_path_factory.mktemp("logs") / "contracts")
    with chain.tasks_that(environment={"SLUICE_CONTRACTS_FOLDER": str(folder)}):
        sent = [chain.upload(f"incoming/{name}", body) for name, body in planted().items()]
        assert chain.deliver({"Records": [{"eventName": "ObjectCreated:Put"}]})["error"]
        for upload in sent:
            chain.done(upload, 180)
        chain.settle()
    wait_for_the_last_lines(chain, "trigger", "dispatched", sent)
    wait_for_the_last_lines(chain, "task", "done", sent)
    return sent


def wait_for_the_last_lines(chain: Chain, part: str, last_event: str, uploads: list[UploadMessage]) -> None:
    """Wait until a log contains the last line about each upload, because logs arrive late."""
    runs = {upload.run_id for upload in uploads}

    def are_there() -> bool:
        return runs <= {line.get("run_id") for line in lines_of(chain, part) if line.get("event") == last_event}

    chain.wait_for(are_there, f"each upload's line {last_event!r} in the log of the {part}", 60)


def everything_in(chain: Chain, group: str) -> list[str]:
    """Return the raw lines of a log group."""
    pages = chain.cloud.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
    return [event["message"] for page in pages for event in page["events"]]


def log_group(chain: Chain, part: str) -> str:
    """Return the name of the log group of a component, such as "task"."""
    groups = chain.cloud.client("logs").describe_log_groups(logGroupNamePrefix="/sluice/")["logGroups"]
    (name,) = [group["logGroupName"] for group in groups if group["logGroupName"].endswith(f"/{part}")]
    return str(name)


def shown_by_prefect(chain: Chain, what: str) -> str:
    """Return all of Prefect's logs, flow runs, task runs or artifacts as one string."""
    pages: list[Any] = []
    while True:
        pages.append(chain.ask_prefect(what, limit=200, offset=200 * len(pages)))
        if len(pages[-1]) < 200:
            return json.dumps(pages)


@pytest.mark.usefixtures("uploads")
def test_no_log_group_contains_a_value_of_the_data(chain: Chain) -> None:
    groups = [group["logGroupName"] for group in chain.cloud.client("logs").describe_log_groups()["logGroups"]]
    lines = {group: "\n".join(everything_in(chain, group)) for group in groups}
    assert any(lines.values())
    assert [group for group, text in lines.items() if SECRET in text] == []


@pytest.mark.usefixtures("uploads")
@pytest.mark.parametrize("what", ["logs", "flow_runs", "task_runs", "artifacts"])
def test_prefect_shows_no_value_of_the_data(chain: Chain, what: str) -> None:
    shown = shown_by_prefect(chain, what)
    assert len(shown) > 1000
    assert SECRET not in shown


@pytest.mark.usefixtures("uploads")
def test_no_history_of_a_drain_contains_a_value_of_the_data(chain: Chain) -> None:
    drains = chain.drains()
    assert drains
    for drain in drains:
        events = chain.step_functions.get_execution_history(executionArn=drain["executionArn"])["events"]
        assert SECRET not in json.dumps([drain, events], default=str)


@pytest.mark.usefixtures("uploads")
def test_no_attempt_and_no_batch_note_contains_a_value_of_the_data(chain: Chain) -> None:
    for key in [*chain.keys("attempts/"), *chain.keys("batches/")]:
        body = chain.s3.get_object(Bucket=chain.outputs["PublishedBucket"], Key=key)["Body"].read()
        assert SECRET.encode() not in body


def test_no_receipt_contains_a_value_of_a_row(chain: Chain, uploads: list[UploadMessage]) -> None:
    assert [upload.key for upload in uploads if SECRET in chain.receipt(upload).to_json()] == []


def lines_of(chain: Chain, part: str) -> list[dict[str, Any]]:
    """Return the lines of a component's log group, each of which must be one JSON object."""
    lines = [json.loads(line) for line in everything_in(chain, log_group(chain, part))]
    assert lines
    assert [line for line in lines if not isinstance(line, dict)] == []
    return lines


def test_every_line_of_the_container_is_json_and_each_stage_logs_its_duration(
    chain: Chain, uploads: list[UploadMessage]
) -> None:
    lines = lines_of(chain, "task")
    assert all({"time", "level", "logger", "event"} <= set(line) for line in lines)
    (good, *_) = uploads
    stages = [line for line in lines if line.get("run_id") == good.run_id and line["event"] == "stage done"]
    assert {line["stage"] for line in stages} == {"fetch", "refine", "publish", "record"}
    assert all(line["dataset"] == "orders" and line["seconds"] >= 0 for line in stages)


def test_every_line_about_an_upload_names_its_run_whichever_code_logs_it(
    chain: Chain, uploads: list[UploadMessage]
) -> None:
    lines, runs = lines_of(chain, "task"), {upload.run_id for upload in uploads}
    by_prefect = {(line["run_id"], line["flow_run_id"]) for line in lines if "flow_run_id" in line}
    observed = {(upload.run_id, chain.receipt(upload).chain.flow_run_id) for upload in uploads}
    assert {run for run in observed if run[1]} <= by_prefect
    assert runs <= {line["run_id"] for line in lines if line["event"] == "received"}
    done = [line for line in lines if line["event"] == "done" and line["run_id"] in runs]
    assert {line["run_id"] for line in done} == runs
    assert all(line["dataset"] and line["seconds"] >= 0 for line in done)


def test_what_a_step_prints_warns_or_raises_is_logged_only_by_type_and_place(
    chain: Chain, uploads: list[UploadMessage]
) -> None:
    (chatty,) = (upload for upload in uploads if "/chatty/" in upload.key)
    lines = [line for line in lines_of(chain, "task") if line.get("run_id") == chatty.run_id]
    assert {line["stream"] for line in lines if "stream" in line} == {"stdout", "stderr"}
    (warned,) = (line for line in lines if "warning" in line)
    assert (warned["warning"], warned["place"].partition(":")[0]) == ("UserWarning", "steps.py")
    assert {line["stage"] for line in lines if "stream" in line or "warning" in line} == {"refine"}
    assert "ValueError" in chain.receipt(chatty).reason


def test_every_line_of_the_lambda_is_json_and_each_upload_has_one(chain: Chain, uploads: list[UploadMessage]) -> None:
    lines = lines_of(chain, "trigger")
    dispatched = {line["run_id"]: line for line in lines if line.get("event") == "dispatched"}
    for upload in uploads:
        line = dispatched[upload.run_id]
        assert (line["level"], line["stage"], line["key"]) == ("INFO", "dispatch", upload.key)
        assert line["dataset"] == upload.key.split("/")[1]
        assert line["seconds"] >= 0
        assert line["message_id"]
    assert [line["error"] for line in lines if line.get("event") == "record_unreadable"]
    assert {line["errorType"] for line in lines if "stackTrace" in line} == {"RecordsFailed"}
    assert {line["type"] for line in lines if "type" in line} >= {"platform.start", "platform.report"}
