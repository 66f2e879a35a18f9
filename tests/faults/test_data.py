"""Tests of faults in the data or in a dataset's custom code, and of the upload's outcome."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import pickle
import random
import resource
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pytest
from moto import mock_aws

from blocks.settings import PipelineSettings
from flows.composition import assemble
from flows.pipeline.attempts import Attempt, write_attempt
from flows.pipeline.commit import read_receipt
from flows.pipeline.drain import Drain, Live
from flows.pipeline.errors import StageTookTooLong
from flows.pipeline.job import Parts, TaskIdentity, UploadJob
from flows.pipeline.receipt import Chain, Receipt, Status
from flows.pipeline.run import run_upload
from flows.refinery.read import reader_process
from flows.refinery.read.partition import Partition
from lambda_trigger.message import UploadMessage
from tests.chain.files import HEADER, good_orders, order, orders
from tests.faults.catalogue import fault
from tests.faults.in_memory_aws import OUTLETS

MIB = 1024**2
MAX_GROWTH_BYTES = 600 * MIB  # in addition to the memory of the libraries


def rejected_as(*codes: str) -> Callable[[Receipt], None]:
    """Return a check that a file is rejected with one of these codes and has no outputs."""

    def look(receipt: Receipt) -> None:
        assert receipt.status is Status.REJECTED
        assert receipt.reasons[0].code in codes, receipt.reason
        assert receipt.outputs == ()

    return look


def published(rows: int, quarantined: int = 0) -> Callable[[Receipt], None]:
    """Return a check for the number of rows that are published and in quarantine."""

    def look(receipt: Receipt) -> None:
        assert receipt.status is Status.PUBLISHED, receipt.reason
        assert (receipt.rows.published, receipt.rows.quarantined_total) == (rows, quarantined)

    return look


def workbook(sheet: str, *, more: dict[str, bytes] | None = None) -> bytes:
    """Return an XLSX file with a single sheet, which consists of the given XML."""
    parts = {
        "[Content_Types].xml": (
            '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" '
            'ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.'
            'openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
            '<Override PartName="/xl/worksheets/sheet1.xml" '
            'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>'
        ),
        "_rels/.rels": (
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="rId1" '
            'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>'
        ),
        "xl/_rels/workbook.xml.rels": (
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="rId1" '
            'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>'
        ),
        "xl/workbook.xml": (
            '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.'
            'openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="A" sheetId="1" r:id="rId1"/>'
            "</sheets></workbook>"
        ),
        "xl/worksheets/sheet1.xml": sheet,
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def sheet_of(*cells: str, before: str = "") -> str:
    """Return the XML of a sheet with the given cells, one for each row."""
    rows = "".join(f'<row r="{number}">{row}</row>' for number, row in enumerate(cells, start=1))
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return f'<?xml version="1.0"?>{before}<worksheet xmlns="{space}"><sheetData>{rows}</sheetData></worksheet>'


def text_cell(place: str, text: str) -> str:
    """Return the XML of a cell with a string."""
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


_LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {this} "{f"&{last};" * 100}">' for last, this in zip("abcdef", "bcdefg", strict=True))
    + "]>"
)


def case(name: str, what: str, body: Callable[[], bytes], look: Callable[[Receipt], None], expected: str) -> object:
    """Return the pytest parameters for a file and its expected outcome."""
    return pytest.param(name, body, look, id=what.replace(" ", "-"), marks=fault("Data", what, expected=expected))


ODD_FILES = [
    case("orders/x.csv", "empty file", lambda: b"", rejected_as("empty_file"), "rejected: empty_file"),
    case(
        "orders/x.csv",
        "header only",
        orders,
        rejected_as("expect_table_row_count_to_be_between"),
        "rejected: the contract requires rows",
    ),
    case(
        "orders/x.csv", "byte order mark", lambda: b"\xef\xbb\xbf" + good_orders(3), published(3), "all rows published"
    ),
    case(
        "things/x.csv",
        "latin-1 text",
        lambda: "name,town\nJosé,Köln\nRenée,Zürich\n".encode("latin-1"),
        rejected_as("encoding_unknown"),
        "rejected: encoding_unknown, with the likely encodings to declare",
    ),
    case(
        "things/x.csv",
        "NUL bytes in a field",
        lambda: b"name,town\nA\x00B,C\nD,E\n",
        published(1, 1),
        "rows with NUL bytes are quarantined, the others published",
    ),
    case(
        "things/x.csv",
        "ragged rows",
        lambda: b"a,b,c\n1,2,3\n4,5\n6,7,8,9\n10,11,12\n",
        published(2, 2),
        "rows that do not fit are quarantined",
    ),
    case(
        "things/x.csv",
        "duplicate column names",
        lambda: b"a,a\n1,2\n",
        rejected_as("header_invalid"),
        "rejected: header_invalid",
    ),
    case(
        "things/x.csv.gz",
        "gzip bomb",
        lambda: gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n" * (4 * MIB)) * 20,
        rejected_as("expands_too_much", "file_too_large"),
        "rejected in bounded memory",
    ),
    case(
        "things/x.csv.gz",
        "one line of a gigabyte",
        lambda: gzip_of_one_line(1024 * MIB),
        rejected_as("record_too_long", "expands_too_much"),
        "rejected in bounded memory",
    ),
    case(
        "things/x.csv",
        "a million columns",
        lambda: ",".join(f"c{number}" for number in range(1_000_000)).encode() + b"\n" + b"1," * 999_999 + b"1\n",
        rejected_as("too_many_columns", "record_too_long"),
        "rejected: too_many_columns",
    ),
    case(
        "things/x.xlsx",
        "XLSX with entity expansion",
        lambda: workbook(sheet_of(text_cell("A1", "a"), text_cell("A2", "&g;"), before=_LAUGHS)),
        rejected_as("workbook_broken", "expands_too_much", "format_not_allowed"),
        "rejected in bounded memory",
    ),
    case(
        "things/x.xlsx",
        "XLSX that is a zip bomb",
        lambda: workbook(sheet_of(text_cell("A1", "a")), more={"xl/media/x.xml": bytes(256 * MIB)}),
        rejected_as("expands_too_much", "file_too_large", "workbook_broken"),
        "rejected in bounded memory",
    ),
    case(
        "things/x.pkl",
        "pickle",
        lambda: pickle.dumps(pd.DataFrame({"a": [1]})),
        rejected_as("format_not_allowed"),
        "never loaded, rejected: format_not_allowed",
    ),
    case(
        "things/x.xlsx",
        "formula cells",
        lambda: workbook(
            sheet_of(
                text_cell("A1", "a"),
                '<c r="A2"><f>1+1</f><v>2</v></c>',
                '<c r="A3"><f>WEBSERVICE("http://x")</f><v>3</v></c>',
            )
        ),
        published(2),
        "the stored values are read, nothing is computed",
    ),
    case(
        "../../receipts/x",
        "a key that tries to escape its prefix",
        lambda: good_orders(2),
        published(2),
        "outputs stay under data/",
    ),
]


def gzip_of_one_line(size: int) -> bytes:
    """Return a gzip file with one line of `size` bytes, which compresses so badly that the file does not look like a
    bomb."""
    letters = bytes(random.Random(1).choices(range(97, 123), k=8192)) * 128
    return gzip.compress(b"a,b\n") + gzip.compress(letters, compresslevel=6) * (size // MIB)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """Create a pipeline with two buckets and a queue in moto, and yield its parts."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with mock_aws():
        yield account()


def account(**changes: object) -> Parts:
    """Create two buckets and a queue in moto's account, and return the parts of a pipeline that uses them."""
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    for bucket in ("landing", "published"):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket="landing", VersioningConfiguration={"Status": "Enabled"})
    url = sqs.create_queue(QueueName="uploads", Attributes={"VisibilityTimeout": "30"})["QueueUrl"]
    fields = {"receive_wait_seconds": 0, "retry_delay_seconds": 0, **changes}
    return assemble(
        PipelineSettings.model_validate(
            {
                "stack": "sluice",
                "landing_bucket": "landing",
                "published_bucket": "published",
                "queue_url": url,
                **fields,
            }
        )
    )


def upload_of(name: str, body: bytes) -> UploadMessage:
    """Put a file into the landing bucket, and return its message."""
    key = f"incoming/{name}"
    response = boto3.client("s3").put_object(Bucket="landing", Key=key, Body=body)
    return UploadMessage(
        bucket="landing",
        key=key,
        version_id=response["VersionId"],
        etag=response["ETag"].strip('"'),
        size_bytes=len(body),
        sequencer="01",
    )


def keys() -> list[str]:
    """Return the keys in the published bucket."""
    listed = boto3.client("s3").list_objects_v2(Bucket="published")
    return [entry["Key"] for entry in listed.get("Contents", [])]


def process(parts: Parts, upload: UploadMessage, receive_count: int = 1) -> Receipt:
    """Run all stages for an upload, and return its receipt."""
    return run_upload(parts, UploadJob(upload, Chain(receive_count=receive_count)))


def _processed_apart(name: str, body: bytes, answers: multiprocessing.Queue[tuple[str, int, list[str]]]) -> None:
    import os

    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    with mock_aws():
        parts = account()
        upload = upload_of(name, body)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        receipt = process(parts, upload)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        written = [key for key in keys() if upload.run_id in key and not key.startswith("docs/")]
        answers.put((receipt.to_json(), grown, written))


@pytest.fixture(scope="module")
def warm() -> None:
    """Make all imports before the first fork, so that the memory of a child process shows only the effect of the
    file."""
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        process(account(), upload_of("orders/warm.csv", good_orders(1)))


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(("name", "body", "look"), ODD_FILES)
def test_an_odd_file_has_one_clear_outcome_in_bounded_memory(
    name: str, body: Callable[[], bytes], look: Callable[[Receipt], None]
) -> None:
    """Each file is processed in a separate process, so that the memory of that process shows what the file needs."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_processed_apart, args=(name, body(), answers))
    child.start()
    text, grown, written = answers.get(timeout=240)
    child.join()
    receipt = Receipt.from_json(text)
    look(receipt)
    assert receipt.rows.balanced
    assert grown < MAX_GROWTH_BYTES
    outputs = [output.key for output in receipt.outputs]
    assert sorted(written) == sorted([f"receipts/{receipt.run_id}.json", *outputs])
    assert all(key.startswith(("data/", "quarantine/")) for key in outputs)


def _a_parquet(rows: int) -> bytes:
    table = pd.DataFrame({f"n{column}": np.random.default_rng(column).random(rows) for column in range(30)})
    sink = io.BytesIO()
    table.to_parquet(sink)
    return sink.getvalue()


def _no_partition(_path: Path) -> Iterator[Partition]:
    yield from ()


@pytest.fixture
def little_memory(tmp_path: Path) -> Iterator[None]:
    """Limit the readers of Parquet files and workbooks to 16 MiB more than the process that they are forked from."""
    list(reader_process.read_apart(_no_partition, tmp_path))  # this starts the process that readers are forked from
    server = reader_process._SERVER
    assert server._process
    pages = int(Path(f"/proc/{server._process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 16 * MIB
    resource.prlimit(server._process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    yield
    server.stop()


@fault("Data", "a file needs so much memory that its reader process is killed", expected="rejected: reader_killed")
def test_a_file_that_kills_its_reader_is_rejected_and_the_next_one_is_read(parts: Parts, little_memory: None) -> None:
    upload = upload_of("other/large.parquet", _a_parquet(250_000))
    receipt = process(parts, upload)
    rejected_as("reader_killed")(receipt)
    assert receipt.reasons[0].part == "read"
    assert str(upload.size_bytes) in receipt.reason
    assert read_receipt(parts.store, upload.run_id) == receipt
    published(10)(process(parts, upload_of("other/small.parquet", _a_parquet(10))))


STEPS = {
    "raises": "def step(frame):\n    raise ValueError('secret ' + str(frame.iloc[0, 0]))\n",
    "nonsense": "def step(frame):\n    return 42\n",
    "never": "def step(frame):\n    while True:\n        pass\n",
}


def with_own_contract(parts: Parts, folder: Path, *, steps: str = "", expectations: str = "", **limits: int) -> Parts:
    """Return the pipeline's parts with a contract for incoming/own/ that has these steps or expectations, and with
    these settings."""
    for name in ("default", "own"):
        (folder / name).mkdir(parents=True)
    (folder / "default" / "contract.yaml").write_text("dataset: default\n")
    contract = "dataset: own\nsource: incoming/own/*\n" + expectations
    if steps:
        contract += "preprocess: [steps.step]\n"
        (folder / "own" / "steps.py").write_text(steps)
    (folder / "own" / "contract.yaml").write_text(contract)
    return assemble(parts.settings.model_copy(update={"contracts_folder": folder, **limits}))


@pytest.mark.parametrize(
    ("step", "says"),
    [
        pytest.param(
            "raises",
            "raised ValueError in steps.py, line 2",
            marks=fault(
                "Data", "a dataset's custom step raises", expected="rejected; the reason has no value, only a line"
            ),
        ),
        pytest.param(
            "nonsense",
            "must return a DataFrame",
            marks=fault(
                "Data",
                "a dataset's custom step does not return a table",
                expected="rejected: not a DataFrame",
            ),
        ),
    ],
)
def test_a_step_that_fails_rejects_the_file_and_names_the_place(
    parts: Parts, tmp_path: Path, step: str, says: str
) -> None:
    own = with_own_contract(parts, tmp_path / "contracts", steps=STEPS[step])
    receipt = process(own, upload_of("own/x.csv", good_orders(3)))
    rejected_as("step_failed")(receipt)
    assert says in receipt.reason
    assert "secret" not in receipt.to_json()


@fault(
    "Data",
    "a dataset's custom step never returns",
    expected="stopped after the stage's time limit and retried once, then rejected: takes_too_long",
)
def test_a_step_that_never_returns_is_stopped_and_the_file_rejected_at_the_second_attempt(
    parts: Parts, tmp_path: Path
) -> None:
    own = with_own_contract(parts, tmp_path / "contracts", steps=STEPS["never"], stage_timeout_seconds=1)
    upload = upload_of("own/x.csv", good_orders(3))
    with pytest.raises(StageTookTooLong) as raised:
        process(own, upload, receive_count=2)  # the task that received it first was stopped
    assert keys() == []
    write_attempt(own.store, Attempt.of(upload, raised.value, dataset="own", receive_count=2, task_arn=None))
    rejected_as("takes_too_long")(process(own, upload, receive_count=3))


@fault(
    "Data",
    "a rule's regular expression backtracks for hours on a string in a large file",
    expected="stopped after the stage's time limit",
)
def test_a_rule_that_takes_hours_is_also_stopped_in_a_large_file(parts: Parts, tmp_path: Path) -> None:
    rule = "expect_column_values_to_match_regex: {column: a, regex: '^(?=a)(a+)+$'}"
    own = with_own_contract(parts, tmp_path / "contracts", expectations=f"expectations: [{rule}]\n")
    limited = replace(own, settings=own.settings.model_copy(update={"stage_timeout_seconds": 8}))
    assert process(own, upload_of("own/small.csv", b"a,b\naa,1\n")).status is Status.PUBLISHED  # makes all imports
    rows = b"aa," + b"x" * 80 + b"\n"
    with pytest.raises(StageTookTooLong):
        process(limited, upload_of("own/large.csv", b"a,b\n" + 120_000 * rows + b"a" * 40 + b"!,x\n"))


def test_a_drain_continues_after_an_upload_whose_step_never_returns(parts: Parts, tmp_path: Path) -> None:
    own = with_own_contract(parts, tmp_path / "contracts", steps=STEPS["never"], stage_timeout_seconds=1)
    stuck, fine = upload_of("own/x.csv", good_orders(3)), upload_of("other/x.csv", good_orders(3))
    for upload in (stuck, fine):
        boto3.client("sqs").send_message(QueueUrl=own.queue.queue_url, MessageBody=upload.to_json())
    live = Live(partial(run_upload, own), lambda: True)
    Drain(
        own,
        TaskIdentity(),
        live,
        OUTLETS,
        ask_for_tasks=lambda _: None,
        is_paused=lambda: False,
        end_of_task=lambda _: None,
    ).run()
    receipts = {upload.key: read_receipt(own.store, upload.run_id) for upload in (stuck, fine)}
    assert [receipt.status if receipt else None for receipt in receipts.values()] == ["rejected", "published"]


@fault("Data", "an expectation that raises instead of failing", expected="rejected, and the rule is named")
def test_an_expectation_that_cannot_be_evaluated_rejects_the_file_and_is_named(parts: Parts, tmp_path: Path) -> None:
    raising = "expectations:\n  - expect_column_values_to_be_between: {column: country, min_value: 1}\n"
    own = with_own_contract(parts, tmp_path / "contracts", expectations=raising)
    receipt = process(own, upload_of("own/x.csv", orders(order(1), order(2))))
    assert receipt.status is Status.REJECTED
    assert "expect_column_values_to_be_between" in receipt.reasons[0].code + receipt.reason
    assert HEADER.split(",")[3] in receipt.reason
