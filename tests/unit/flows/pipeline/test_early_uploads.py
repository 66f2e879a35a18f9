"""Outputs that do not fit the disk together are uploaded while the file is refined, and seen by nobody before that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from blocks.aws_errors import AwsUnavailable
from blocks.object_store import ObjectStore
from flows.composition import assemble
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Output, Receipt, Status
from flows.pipeline.run import run_upload
from flows.published.rows import Selection, published_rows
from flows.refinery.refine import Refined
from flows.refinery.repair.quarantined_rows import read_quarantine
from flows.repair import fetch_quarantine
from tests.chain.files import WIDE_CONTRACT, WIDE_ROWS, wide_rows
from tests.unit.flows.conftest import PUBLISHED, Account

KEY = "incoming/wide/x.parquet"
SHORT_ENOUGH = "  - expect_table_row_count_to_be_between: {max_value: 1000}\n"
FIRST_IS_GOOD = "  - expect_column_values_to_be_between: {column: id, max_value: 0}\n"


@pytest.fixture
def wide(account: Account, tmp_path: Path) -> Account:
    """Return the account with a contract whose files are small."""
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
    """Return the keys of uploads that are neither completed nor deleted."""
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


def test_full_files_leave_the_disk_while_the_file_is_refined_and_nobody_sees_them(wide: Account) -> None:
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
        """SIGKILL: nothing is cleaned up."""

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
    assert begun[1] > 1  # after refine
    assert (pending(), wide.keys("data/"), wide.keys("quarantine/")) == ([], [], [])


def test_a_dry_run_uploads_nothing(wide: Account) -> None:
    begun = []
    job = UploadJob(wide.upload(KEY, wide_rows()), dry_run=True)
    receipt = watched(wide, job, lambda *_: begun.append(len(pending())))
    assert (receipt.rows.published, set(begun), wide.keys()) == (WIDE_ROWS, {0}, [])


def test_a_stage_publish_that_is_tried_again_completes_the_rest(wide: Account, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_quarantine_is_cut_too_and_a_repair_gets_all_of_it(wide: Account, tmp_path: Path) -> None:
    demand(wide, FIRST_IS_GOOD)
    receipt = wide.process(wide.upload(KEY, wide_rows()))
    files = of_kind(receipt, "quarantine")
    assert len(files) > 2
    assert sum(output.rows for output in files) == receipt.rows.quarantined_total == WIDE_ROWS - 1
    fetch_quarantine(wide.parts, receipt.run_id, tmp_path / "bad")
    rows = read_quarantine(tmp_path / "bad")
    assert [row.values["id"] for row in rows.values()] == [str(number) for number in range(1, WIDE_ROWS)]
