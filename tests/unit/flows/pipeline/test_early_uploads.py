"""Large outputs are uploaded while the file is still being refined, but become visible only when it is published."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import boto3
import pytest

from blocks.aws_errors import AwsUnavailable
from blocks.object_store import ObjectStore, PendingUpload
from flows.composition import assemble
from flows.pipeline import early_uploads
from flows.pipeline.early_uploads import EarlyUploads
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Output, Receipt, Status
from flows.pipeline.run import run_upload
from flows.pipeline.stopping import Stopped
from flows.published.rows import Selection, published_rows
from flows.refinery import refine
from flows.refinery.errors import SluiceError
from flows.refinery.output_files import OutputFile
from flows.refinery.read.rejections import CompressionBroken
from flows.refinery.refine import Refined
from flows.refinery.repair.quarantined_rows import read_quarantine
from flows.repair import fetch_quarantine
from tests.chain.files import WIDE_CONTRACT, WIDE_GROUPS, WIDE_ROWS, wide_rows
from tests.unit.flows.conftest import PUBLISHED, Account

pytestmark = pytest.mark.heavy

KEY = "incoming/wide/x.parquet"
SHORT_ENOUGH = "  - expect_table_row_count_to_be_between: {max_value: 100}\n"
FIRST_IS_GOOD = "  - expect_column_values_to_be_between: {column: id, max_value: 0}\n"


@pytest.fixture
def wide(account: Account, tmp_path: Path) -> Account:
    """Return the account with a contract whose output files are small, so that several fill up before the file ends."""
    folder = tmp_path / "contracts"
    for name, text in {"default": "dataset: default\n", "wide": f"dataset: wide\n{WIDE_CONTRACT}"}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "contract.yaml").write_text(text)
    return Account(assemble(account.parts.settings.model_copy(update={"contracts_folder": folder})))


def demand(wide: Account, expectation: str) -> None:
    (wide.parts.settings.contracts_root / "wide" / "contract.yaml").write_text(
        f"dataset: wide\n{WIDE_CONTRACT}expectations:\n{expectation}"
    )


def pending() -> list[str]:
    """Return the keys of multipart uploads that have been neither completed nor aborted."""
    listed = boto3.client("s3").list_multipart_uploads(Bucket=PUBLISHED)
    return sorted(each["Key"] for each in listed.get("Uploads", []))


def of_kind(receipt: Receipt, kind: str) -> list[Output]:
    return [output for output in receipt.outputs if output.kind == kind]


def watched(wide: Account, job: UploadJob, look: Callable[[str, Any], None]) -> Receipt:
    def call(stage: Callable[..., Any], *values: Any) -> Any:
        result = stage(*values)
        look(stage.__name__, result)
        return result

    return run_upload(wide.parts, job, call)


def test_full_files_are_uploaded_during_refine_and_become_visible_with_publish(wide: Account) -> None:
    seen: dict[str, Any] = {}

    def look(stage: str, result: Any) -> None:
        if isinstance(result, Refined):
            seen["on disk"] = [output.path.exists() for output in result.outputs]
        seen[stage] = (len(pending()), len(wide.keys("data/")))

    upload = wide.upload(KEY, wide_rows())
    receipt = watched(wide, UploadJob(upload), look)
    data = of_kind(receipt, "data")
    assert len(data) > 2
    early = len(data) - seen["on disk"].count(True)
    assert early >= len(data) - 1
    assert seen["refine"] == (early, 0)
    assert seen["publish"] == (0, len(data))
    assert sorted(wide.keys("data/")) == sorted(output.key for output in data)
    assert sum(output.rows for output in data) == receipt.rows.published == WIDE_ROWS


def test_readers_get_the_rows_of_all_files_in_their_order(wide: Account) -> None:
    wide.process(wide.upload(KEY, wide_rows()))
    with published_rows(wide.parts.store, "wide", Selection()) as rows:
        assert (rows.rows, rows.table()["id"].to_pylist()) == (WIDE_ROWS, list(range(WIDE_ROWS)))


def test_files_with_the_same_rows_are_two_objects(wide: Account) -> None:
    receipt = wide.process(wide.upload(KEY, wide_rows(different_notes=1)))
    data = of_kind(receipt, "data")
    assert len({output.sha256 for output in data}) < len(data)
    assert len(set(wide.keys("data/"))) == len(data) > 2


def test_a_retry_after_a_kill_publishes_the_same_keys_once(wide: Account) -> None:
    class Killed(BaseException):
        """Stops processing as SIGKILL does: nothing catches it to clean up."""

    def die(stage: str, _result: Any) -> None:
        if stage == "publish":
            keys.extend(wide.keys("data/"))
            raise Killed

    keys: list[str] = []
    upload = wide.upload(KEY, wide_rows())
    with pytest.raises(Killed):
        watched(wide, UploadJob(upload), die)
    receipt = wide.process(upload)
    assert sorted(keys) == sorted(wide.keys("data/")) == sorted(output.key for output in receipt.outputs)


def test_a_file_that_is_rejected_at_its_end_leaves_nothing(wide: Account) -> None:
    demand(wide, SHORT_ENOUGH)
    begun = []
    upload = wide.upload(KEY, wide_rows())
    receipt = watched(wide, UploadJob(upload), lambda *_: begun.append(len(pending())))
    assert receipt.status is Status.REJECTED
    assert begun[1] > 1  # so the rejection came after refine had begun uploads
    assert (pending(), wide.keys("data/"), wide.keys("quarantine/")) == ([], [], [])


def test_a_dry_run_uploads_nothing(wide: Account) -> None:
    begun = []
    job = UploadJob(wide.upload(KEY, wide_rows()), dry_run=True)
    receipt = watched(wide, job, lambda *_: begun.append(len(pending())))
    assert (receipt.rows.published, set(begun), wide.keys()) == (WIDE_ROWS, {0}, [])


def test_a_retried_publish_completes_the_remaining_multipart_uploads(
    wide: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, calls = ObjectStore.complete_upload, []

    def fail_once(store: ObjectStore, upload: Any) -> None:
        calls.append(upload.key)
        if len(calls) == 2:
            raise AwsUnavailable("503")
        complete(store, upload)

    def call(stage: Callable[..., Any], *values: Any) -> Any:
        try:
            return stage(*values)
        except AwsUnavailable:
            return stage(*values)

    monkeypatch.setattr(ObjectStore, "complete_upload", fail_once)
    receipt = run_upload(wide.parts, UploadJob(wide.upload(KEY, wide_rows())), call)
    assert calls[1] == calls[2]
    assert len(set(calls)) == len(calls) - 1
    assert sorted(wide.keys("data/")) == sorted(output.key for output in receipt.outputs)


def test_quarantine_is_split_into_files_too_and_a_repair_reads_all_of_them(wide: Account, tmp_path: Path) -> None:
    demand(wide, FIRST_IS_GOOD)
    receipt = wide.process(wide.upload(KEY, wide_rows()))
    files = of_kind(receipt, "quarantine")
    assert len(files) > 2
    assert sum(output.rows for output in files) == receipt.rows.quarantined_total == WIDE_ROWS - 1
    fetch_quarantine(wide.parts, receipt.run_id, tmp_path / "bad")
    rows = read_quarantine(tmp_path / "bad")
    assert [row.values["id"] for row in rows.values()] == [str(number) for number in range(1, WIDE_ROWS)]


# --- processing that ends before the output is uploaded ---------------------------------------------------------------

_PARTS_AT_ONCE = 2


class SlowS3:
    """A patch that makes each part of a multipart upload wait until `answers` is set.

    Attributes:
        answers: set by a test to let all parts continue.
        began: the number of parts whose upload has begun.
        was_waited_for: whether a part timed out because `answers` was not set.
        is_busy: set when the maximum number of parallel parts waits. `reached` is called at that moment.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reached: Callable[[], object] = lambda: None) -> None:
        self.answers, self.began, self.was_waited_for = threading.Event(), 0, False
        self.is_busy, upload_part = threading.Event(), ObjectStore.upload_part

        def slow(store: ObjectStore, *values: Any) -> str:
            self.began += 1
            if self.began == _PARTS_AT_ONCE:
                self.is_busy.set()
                reached()
            self.was_waited_for |= not self.answers.wait(20)
            return upload_part(store, *values)

        monkeypatch.setattr(early_uploads, "_PART_BYTES", 1 << 16)  # each file has at least 16 parts
        monkeypatch.setattr(ObjectStore, "upload_part", slow)


@pytest.mark.parametrize("small_bytes", [0, 1 << 30], ids=["written in a thread", "written in the main thread"])
def test_a_task_that_is_stopped_abandons_the_upload_and_calls_s3_no_more(
    wide: Account, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    came = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not came.is_set():
            came.set()
            raise Stopped

    def sigterm() -> None:
        while not came.wait(0.1):  # Python may miss a signal that arrives just before it waits for a lock
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    monkeypatch.setattr(refine, "_SMALL_BYTES", small_bytes)
    aborted: list[str] = []
    monkeypatch.setattr(ObjectStore, "abort_upload", lambda _store, upload: aborted.append(upload.key))
    s3 = SlowS3(monkeypatch, reached=sigterm)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stopped):
            run_upload(wide.parts, UploadJob(wide.upload(KEY, wide_rows())))
    finally:
        signal.signal(signal.SIGTERM, before)
        s3.answers.set()
    assert (s3.was_waited_for, s3.began, aborted) == (False, _PARTS_AT_ONCE, [])
    assert len(pending()) == 1  # the bucket's lifecycle rule will delete it


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(CompressionBroken("bad"), "rejected"), (OSError(errno.ENOSPC, "disk full"), "StageBroke")],
    ids=["the file is rejected", "the disk is full"],
)
def test_an_upload_whose_file_will_not_be_published_is_abandoned_and_deleted(
    wide: Account, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str
) -> None:
    s3 = SlowS3(monkeypatch)
    abandon = EarlyUploads.abandon

    def abandoned(early: EarlyUploads) -> None:
        abandon(early)
        s3.answers.set()

    def progress(_part: str, rows: int) -> None:
        if rows == WIDE_ROWS // WIDE_GROUPS:  # the writing thread has received the first partition, which fills a file
            assert s3.is_busy.wait(30)
            raise error

    monkeypatch.setattr(refine, "_SMALL_BYTES", 0)
    monkeypatch.setattr(EarlyUploads, "abandon", abandoned)
    upload = wide.upload(KEY, wide_rows())
    try:
        ended = str(run_upload(wide.parts, UploadJob(upload), on_progress=progress).status)
    except SluiceError as failure:
        ended = type(failure).__name__
    assert (ended, s3.was_waited_for, s3.began) == (outcome, False, _PARTS_AT_ONCE)
    assert (pending(), wide.keys("data/")) == ([], [])


def test_a_multipart_upload_with_a_failed_part_is_aborted(wide: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise AwsUnavailable("503")

    monkeypatch.setattr(ObjectStore, "upload_part", fail)
    with pytest.raises(AwsUnavailable):
        run_upload(wide.parts, UploadJob(wide.upload(KEY, wide_rows())))
    assert pending() == []


def test_a_file_of_any_size_has_at_most_ten_thousand_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    def upload_part(*values: Any) -> str:
        _, _, number, _, part_bytes = values
        sent.append((number, part_bytes))
        return "etag"

    monkeypatch.setattr(ObjectStore, "create_upload", lambda _, key, sha256: PendingUpload(key, "upload", sha256))
    monkeypatch.setattr(ObjectStore, "upload_part", upload_part)
    monkeypatch.setattr(early_uploads, "_PART_BYTES", 1)
    path = tmp_path / "file"
    path.write_bytes(bytes(10_001))
    early = EarlyUploads(ObjectStore("landing", "published"), lambda *_: "key")
    early.take("data", OutputFile(path, "", 1, 10_001, "aa", ".parquet"))
    assert sorted(sent) == [(number, 2) for number in range(1, 5_002)]
