"""Commands show the progress and the receipts of uploads, `demo` compares outcomes, and `clean` deletes only state."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deployment.commands import SafeConsole, demo
from deployment.commands.clean import clean
from deployment.commands.show import _table, details_of, rows_of, shown_progress
from deployment.commands.status import StackStatus, print_uploads
from deployment.commands.up import _news
from deployment.commands.uploads import QueueLengths, TrackedUpload, UploadState
from deployment.local.errors import LocalCloudBusy
from deployment.local.state_lock import StateLock
from deployment.samples.orders import ExpectedOutcome
from flows.pipeline.receipt import ContractUsed, Receipt, Rows, Source, Status
from flows.refinery.checks import RejectionReason
from lambda_trigger.message import UploadMessage

_MESSAGE = UploadMessage(bucket="landing", key="incoming/orders/a.csv", version_id="1", etag="e", size_bytes=1)


def receipt(status: Status = Status.PUBLISHED, **more: Any) -> Receipt:
    return Receipt(
        **{
            "schema": 1,
            "status": status,
            "run_id": _MESSAGE.run_id,
            "attempt": 0,
            "source": Source(bucket="landing", key=_MESSAGE.key, version_id="1", etag="e", size_bytes=1),
            "contract": ContractUsed(dataset="orders", content_hash="0", is_default=False),
            "rows": Rows(rows_in=10, published=7, quarantined={"a rule": 2}, dropped={"a step": 1}),
            "observed": True,
            "code_version": "1",
            "created_at": "2026-01-01T00:00:00Z",
            **more,
        }
    )


def followed(stage: UploadState = UploadState.PUBLISHED, **more: Any) -> TrackedUpload:
    return TrackedUpload("orders/a.csv", _MESSAGE, stage=stage, **more)


def written(**more: Any) -> ExpectedOutcome:
    return ExpectedOutcome(**{"rows": 10, "published": 7, "quarantined": 2, "dropped": 1, "rejected": False, **more})


# --- following ----------------------------------------------------------------------------------------------


def test_an_upload_never_returns_to_an_earlier_state() -> None:
    upload = followed(UploadState.UPLOADED)
    for stage in (UploadState.QUEUED, UploadState.PUBLISHED, UploadState.RUNNING):
        upload.reach(stage)
    assert upload.stage is UploadState.PUBLISHED
    assert upload.ended is not None


def test_if_the_output_is_not_a_terminal_each_change_is_one_line() -> None:
    kept = io.StringIO()
    upload = followed(UploadState.UPLOADED)
    with shown_progress(Console(file=kept, width=40), [upload]) as on_look:
        on_look()
        on_look()
        upload.reach(UploadState.QUEUED)
        on_look()
        upload.note = "an attempt failed; retrying"
        on_look()
        upload.note, upload.receipt = "", receipt()
        upload.reach(UploadState.PUBLISHED)
        on_look()
    lines = [line.split(None, 2)[2] for line in kept.getvalue().splitlines()]
    assert lines == [
        "uploaded   orders/a.csv",
        "queued     orders/a.csv",
        "queued     orders/a.csv  an attempt failed; retrying",
        "published  orders/a.csv  7 of 10 published, 2 quarantined, 1 dropped",
    ]


def test_a_receipt_is_shown_with_every_reason() -> None:
    assert rows_of(receipt()) == "7 of 10 published, 2 quarantined, 1 dropped"
    assert details_of(receipt()) == ["quarantined 2: a rule", "dropped 1: a step"]
    reasons = (RejectionReason(code="empty", message="the file is empty"),)
    rejected = receipt(
        Status.REJECTED, reasons=reasons, rows=Rows(rows_in=3, published=0, dropped={"file_rejected": 3})
    )
    assert details_of(rejected) == ["rejected: the file is empty"]


# --- demo ---------------------------------------------------------------------------------------------------


def test_an_expected_outcome_has_no_difference() -> None:
    assert demo.difference_from_expected(followed(receipt=receipt()), written()) == ""


@pytest.mark.parametrize(
    ("upload", "wanted", "difference"),
    [
        (followed(UploadState.RUNNING), written(), "still running"),
        (followed(UploadState.RUNNING, note="an attempt failed: AwsRefused"), written(), "AwsRefused"),
        (followed(UploadState.REJECTED, receipt=receipt(Status.REJECTED)), written(), "instead of published"),
        (followed(receipt=receipt()), written(rejected=True), "instead of rejected"),
        (followed(UploadState.FAILED, problem="ObjectArchived: restore it"), written(), "ObjectArchived: restore it"),
        (followed(receipt=receipt()), written(published=8, quarantined=1), "(10, 7, 2, 1) instead of (10, 8, 1, 1)"),
    ],
)
def test_any_other_outcome_is_reported(upload: TrackedUpload, wanted: ExpectedOutcome, difference: str) -> None:
    assert difference in demo.difference_from_expected(upload, wanted)


def test_the_expected_outcomes_of_the_demo_files_add_up(tmp_path: Path) -> None:
    for sample in demo.SAMPLES:
        path = tmp_path / sample.file_name
        expected = sample.write(path)
        assert expected.rows == expected.published + expected.quarantined + expected.dropped
        assert path.exists()
    assert len((tmp_path / "penguins.csv").read_text().splitlines()) == 1 + 344
    assert {sample.write(tmp_path / "again").rejected for sample in demo.SAMPLES} == {True, False}


# --- clean --------------------------------------------------------------------------------------------------


def cleaned(folder: Path, *, cache_too: bool = False) -> None:
    clean(Console(quiet=True), folder, cache_too=cache_too)


def state_folder(folder: Path) -> Path:
    lock = StateLock(folder)
    lock.acquire()
    lock.release()
    for name in ("cloud", "prefect", "cache"):
        (folder / name).mkdir()
    (folder / "cloud" / "object").touch()
    (folder / "cloud.json").write_text("{}")
    return folder


def test_clean_deletes_the_state_and_keeps_the_cache(tmp_path: Path) -> None:
    folder = state_folder(tmp_path / "state")
    cleaned(folder)
    assert [path.name for path in folder.iterdir()] == ["cache"]


def test_clean_with_the_cache_leaves_nothing(tmp_path: Path) -> None:
    folder = state_folder(tmp_path / "state")
    cleaned(folder, cache_too=True)
    assert not folder.exists()


def test_clean_never_deletes_files_that_are_not_the_state_of_a_local_cloud(tmp_path: Path) -> None:
    (tmp_path / "cloud").mkdir()
    cleaned(tmp_path)
    assert (tmp_path / "cloud").exists()
    folder = state_folder(tmp_path / "state")
    (folder / "thesis.tex").touch()
    cleaned(folder, cache_too=True)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_clean_refuses_while_a_cloud_runs(tmp_path: Path) -> None:
    folder = state_folder(tmp_path / "state")
    lock = StateLock(folder)
    lock.acquire()
    with pytest.raises(LocalCloudBusy):
        cleaned(folder)
    assert (folder / "cloud" / "object").exists()
    lock.release()


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),  # sets the window's title, with ESC and BEL
        ("\x1b[2J", "\\x1b[2J"),
        ("\r", "\\r"),
        ("\n", "\\n"),
        ("\x9b2J", "\\x9b2J"),  # CSI as a single character
        ("\u202e", "\\u202e"),  # right-to-left override
        ("\u2066", "\\u2066"),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_control_characters_of_a_key_are_escaped(character: str, shown: str, terminal: bool) -> None:
    output = io.StringIO()
    console = SafeConsole(file=output, force_terminal=terminal, color_system=None, soft_wrap=True)
    key = f"incoming/a{character}b.csv"
    reasons = (RejectionReason(code="empty", message=f"about {character}"),)
    source = Source(bucket="landing", key=key, version_id="1", etag="e", size_bytes=1)
    receipts = [receipt(Status.REJECTED, source=source, reasons=reasons)]
    found = StackStatus(QueueLengths(0, 0, 0), [], 0, False, [], 0, receipts, is_paused=False)
    print_uploads(console, found)
    console.print(_table([TrackedUpload(key, _MESSAGE, stage=UploadState.QUEUED)], 10))
    printed = output.getvalue()
    assert printed.count(f"incoming/a{shown}b.csv") == 2
    assert character == "\n" or character not in printed


def test_the_news_lists_at_most_the_newest_20_changes_oldest_first() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    before = {"same": at, "again": at}
    now = {"new": at + timedelta(seconds=2), "again": at + timedelta(seconds=1), "same": at}
    assert _news(before, now) == ["again", "new"]
    assert _news({}, {}) == []
    many = {str(number): at for number in range(30)}
    assert _news({}, many) == [str(number) for number in reversed(range(20))]
