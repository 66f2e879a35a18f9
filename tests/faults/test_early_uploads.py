"""Tests of files whose outputs are uploaded while the file is still being refined. A worker dies or is stopped, or the
file is rejected in the end."""

from __future__ import annotations

import signal

import pytest

from flows.pipeline.receipt import Status
from tests.chain.files import WIDE_CONTRACT, WIDE_ROWS, wide_rows
from tests.faults.bench import Bench, Case
from tests.faults.catalogue import fault
from tests.faults.saboteur import Sabotage

pytestmark = pytest.mark.cloud
_KEY = "incoming/wide/{}.parquet"
_WITHOUT_PREFECT = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}  # so that the upload is processed without a live run
_DISK_BYTES = 12 << 20  # two and a half output files


def _contracts(case: Case, more: str = "") -> dict[str, str]:
    folder = case.copy_contracts()
    (folder / "wide").mkdir()
    (folder / "wide" / "contract.yaml").write_text(f"dataset: wide\n{WIDE_CONTRACT}{more}")
    return {"SLUICE_CONTRACTS_FOLDER": str(folder)}


def _keys_below_data(bench: Bench, case: Case) -> list[str]:
    return [key for key in bench.chain.keys("data/") if case.upload.run_id in key]


def _pending(bench: Bench, case: Case) -> list[str]:
    """Return the keys of the case's multipart uploads that are neither completed nor aborted."""
    listed = bench.chain.s3.list_multipart_uploads(Bucket=bench.chain.outputs["PublishedBucket"])
    return [each["Key"] for each in listed.get("Uploads", []) if case.upload.run_id in each["Key"]]


@pytest.mark.parametrize(
    ("call", "visible"),
    [
        pytest.param(
            "s3.UploadPart",
            0,
            marks=fault(
                "Queue and task",
                "SIGKILL while full output files are uploaded",
                expected="readers do not see them; processed again, every file published once",
            ),
        ),
        pytest.param(
            "s3.CompleteMultipartUpload",
            2,
            marks=fault(
                "Queue and task",
                "SIGKILL while the uploads of output files are completed",
                expected="processed again under the same keys, every file published once",
            ),
        ),
    ],
)
def test_output_files_of_a_killed_worker_are_each_published_once(bench: Bench, call: str, visible: int) -> None:
    case = bench.case(_KEY.format(call), wide_rows())
    contracts = _contracts(case)
    assert case.work(Sabotage(on=call, nth=2, do="kill_after"), environment=contracts).exit_code == -9
    before = _keys_below_data(bench, case)
    assert len(before) == visible
    assert _pending(bench, case) != []
    case.wait_until_visible()
    assert case.work(environment=contracts).exit_code == 0
    receipt = case.kept_promises(rows=WIDE_ROWS)
    assert len(receipt.outputs) > 2
    assert set(before) <= {output.key for output in receipt.outputs}


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        pytest.param(
            "live",
            {},
            marks=fault(
                "Queue and task",
                "SIGTERM while S3 does not answer the upload of a full output file",
                expected="the message is returned without waiting for S3; the next worker publishes every file once",
            ),
        ),
        pytest.param(
            "bulk",
            _WITHOUT_PREFECT,
            marks=fault(
                "Queue and task",
                "SIGTERM while S3 does not answer the upload of a full output file, and Prefect is down",
                expected="the message is returned without waiting for S3; the next worker publishes every file once",
            ),
        ),
    ],
)
def test_a_task_that_is_stopped_does_not_wait_for_an_upload(
    bench: Bench, name: str, environment: dict[str, str]
) -> None:
    case = bench.case(_KEY.format(name), wide_rows())
    contracts = _contracts(case)
    part, part_gate = case.gate("s3.UploadPart")  # never opened
    abort, abort_gate = case.gate("s3.AbortMultipartUpload")
    worker = case.start(part, abort, environment=contracts | environment)
    case.held_at(part_gate)
    worker.signal(signal.SIGTERM)
    outcome = worker.ended()
    assert outcome.exit_code == 143
    assert outcome.logged("stopped, returning the messages")
    assert not abort_gate.with_suffix(".reached").exists(), "S3 might not answer this call either"
    assert case.count() == {"waiting": 1, "held": 0}
    assert (_keys_below_data(bench, case), len(_pending(bench, case))) == ([], 1)
    assert case.work(environment=contracts).exit_code == 0
    assert len(case.kept_promises(rows=WIDE_ROWS).outputs) > 2


@fault(
    "Data",
    "a file that is rejected at its end, after full output files were uploaded",
    expected="nothing is under data/, and no pending upload could become an object",
)
def test_a_file_that_is_rejected_after_early_uploads_leaves_no_outputs(bench: Bench) -> None:
    case = bench.case(_KEY.format("rejected"), wide_rows())
    rule = "expectations:\n  - expect_table_row_count_to_be_between: {max_value: 100}\n"
    hold, gate = case.gate("s3.PutObject", "/receipts/")
    worker = case.start(hold, environment=_contracts(case, rule))
    case.held_at(gate)
    assert _keys_below_data(bench, case) == []
    gate.touch()
    assert worker.ended().exit_code == 0
    receipt = case.kept_promises(Status.REJECTED)
    assert [reason.code for reason in receipt.reasons] == ["expect_table_row_count_to_be_between"]
    assert _pending(bench, case) == []


@fault(
    "Queue and task",
    "a disk that is too small for the upload and for its outputs",
    expected="the upload is read in ranges, full output files are uploaded and deleted; published",
)
def test_an_upload_and_outputs_that_are_larger_than_the_disk_are_published(bench: Bench) -> None:
    case = bench.case(_KEY.format("small-disk"), wide_rows())
    assert case.upload.size_bytes > _DISK_BYTES
    assert case.work(environment=_contracts(case), disk_bytes=_DISK_BYTES).exit_code == 0
    receipt = case.kept_promises(rows=WIDE_ROWS)
    assert sum(output.size_bytes for output in receipt.outputs) > _DISK_BYTES
