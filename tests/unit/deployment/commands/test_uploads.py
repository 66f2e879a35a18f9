"""The commands determine the state of uploads from receipts, recorded attempts, batch notes and queues."""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from blocks.settings import CONTRACTS
from deployment.commands import SafeConsole, first_of
from deployment.commands import uploads as uploads_module
from deployment.commands.show import print_unreadable
from deployment.commands.status import status, status_of
from deployment.commands.upload import NameIgnored, upload
from deployment.commands.upload_files import ArchiveUnusable, FileUnusable, LocalFile, datasets
from deployment.commands.upload_search import ALL, TimeUnreadable, Wanted, moment_of
from deployment.commands.uploads import _LOOKS_AT_ONCE, TrackedUpload, Uploads, UploadState
from deployment.deployed_stack import AwsStack
from flows.pipeline.attempts import Attempt, write_attempt
from flows.pipeline.batch_notes import BatchNote, NotedUpload, write_note
from flows.pipeline.held_uploads import read_held_uploads
from flows.pipeline.protocol import IndexedRun, IndexEntry, index_key
from flows.pipeline.receipt import ContractUsed, Receipt, Rows, Source, Status, receipt_key
from flows.refinery.errors import TransientError
from lambda_trigger.message import UploadMessage
from lambda_trigger.pause import PAUSE_KEY
from tests.unit.empty_account import empty_account

_AT = "2026-01-01T00:00:00.000+00:00"


class S3Busy(TransientError):
    """S3 is busy."""


@dataclass
class Stack:
    """The buckets and queues of a stack, to which tests write as the stack's tasks would."""

    cloud: AwsStack
    uploads: Uploads

    def message(self, name: str = "a.csv", attempt: int = 0) -> UploadMessage:
        key = f"incoming/orders/{name}"
        return UploadMessage(bucket="landing", key=key, version_id="1", etag="e", size_bytes=1, attempt=attempt)

    def finish(self, message: UploadMessage, status: Status = Status.PUBLISHED) -> Receipt:
        source = Source(bucket="landing", key=message.key, version_id=message.version_id, etag="e", size_bytes=1)
        receipt = Receipt(
            schema_version=1,
            status=status,
            run_id=message.run_id,
            attempt=message.attempt,
            source=source,
            contract=ContractUsed(dataset="orders", content_hash="0", is_default=False),
            rows=Rows(rows_in=1, published=1),
            observed=True,
            code_version="1",
            created_at=_AT,
        )
        self.uploads.store.put(receipt_key(message.run_id), receipt.to_json())
        return receipt

    def fail(self, message: UploadMessage, **more: Any) -> Attempt:
        fields = {"dataset": "orders", "receive_count": 1, "task_arn": None, **more}
        attempt = Attempt.of(message, S3Busy("try\nagain"), **fields)
        write_attempt(self.uploads.store, attempt)
        return attempt

    def hold(self, *messages: UploadMessage, number: int = 1, **more: Any) -> BatchNote:
        noted = tuple(NotedUpload(upload=message, message_id="m") for message in messages)
        note = BatchNote(task="task", number=number, at=_AT, uploads=noted, **more)
        write_note(self.uploads.store, note)
        return note

    def queue(self, message: UploadMessage, queue: str = "QueueUrl") -> None:
        boto3.client("sqs").send_message(QueueUrl=self.cloud.outputs[queue], MessageBody=message.to_json())

    def look(self, message: UploadMessage) -> TrackedUpload:
        tracked = TrackedUpload("a.csv", message)
        self.uploads.look([tracked])
        return tracked

    def shown(self, wanted: Wanted = ALL) -> str:
        printed = io.StringIO()
        console = SafeConsole(file=printed, soft_wrap=True, highlight=False)
        status(console, self.cloud, limit=20, as_json=False, wanted=wanted)
        return printed.getvalue()

    def document(self) -> dict[str, Any]:
        printed = io.StringIO()
        status(SafeConsole(file=printed, soft_wrap=True), self.cloud, limit=20, as_json=True)
        document: dict[str, Any] = json.loads(printed.getvalue())
        return document


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with empty_account():
        s3, sqs = boto3.client("s3"), boto3.client("sqs")
        for bucket in ("landing", "published"):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket="landing", VersioningConfiguration={"Status": "Enabled"})
        outputs = {
            "LandingBucket": "landing",
            "PublishedBucket": "published",
            "QueueUrl": sqs.create_queue(QueueName="uploads")["QueueUrl"],
            "DeadLetterQueueUrl": sqs.create_queue(QueueName="dead")["QueueUrl"],
            "IncomingPrefix": "incoming/",
            "IgnoredNames": "*.tmp",
        }
        cloud = AwsStack("us-east-1", "", "sluice", outputs, {"PrefectApiUrl": "http://prefect.example/api"})
        yield Stack(cloud, Uploads(cloud))


# --- one upload -----------------------------------------------------------------------------------------------


def test_an_upload_is_queued_once_a_message_waits_and_running_once_a_task_holds_it(stack: Stack) -> None:
    message = stack.message()
    assert stack.look(message).stage is UploadState.UPLOADED
    stack.queue(message)
    assert stack.look(message).stage is UploadState.QUEUED
    stack.hold(message)
    assert stack.look(message).stage is UploadState.RUNNING


@pytest.mark.parametrize(
    ("status", "stage"), [(Status.PUBLISHED, UploadState.PUBLISHED), (Status.REJECTED, UploadState.REJECTED)]
)
def test_a_receipt_is_the_outcome_even_if_an_attempt_failed_or_a_task_holds_the_upload(
    stack: Stack, status: Status, stage: UploadState
) -> None:
    message = stack.message()
    stack.queue(message)
    stack.hold(message)
    stack.fail(message, given_up=True)
    receipt = stack.finish(message, status)
    tracked = stack.look(message)
    assert (tracked.stage, tracked.receipt, tracked.done, tracked.note) == (stage, receipt, True, "")


def test_an_upload_with_a_failed_attempt_is_not_done_and_shows_the_reason_in_one_line(stack: Stack) -> None:
    message = stack.message()
    stack.fail(message)
    tracked = stack.look(message)
    assert not tracked.done
    assert "S3Busy: try again" in tracked.note


def test_an_upload_that_was_given_up_is_failed_with_its_last_reason(stack: Stack) -> None:
    message = stack.message()
    stack.fail(message, given_up=True)
    tracked = stack.look(message)
    assert (tracked.stage, tracked.done, tracked.problem) == (UploadState.FAILED, True, "S3Busy: try again")


@pytest.mark.parametrize("key", ["receipts/{}.json", "attempts/{}.json", "batches/task/9.json"])
def test_an_unreadable_object_does_not_prevent_a_look(stack: Stack, key: str) -> None:
    message = stack.message()
    stack.uploads.store.put(key.format(message.run_id), "{}")
    stack.hold(message)
    tracked = stack.look(message)
    assert tracked.stage is (UploadState.FAILED if key.startswith("receipts/") else UploadState.RUNNING)


def test_upload_succeeds_once_the_receipt_exists_whichever_task_wrote_it(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("a\n1\n")

    def look_after_another_task(self: Uploads, tracked: list[TrackedUpload], **_: Any) -> bool:
        stack.finish(tracked[0].message)
        self.look(tracked)
        return tracked[0].done

    monkeypatch.setattr(Uploads, "follow", look_after_another_task)
    console = SafeConsole(file=io.StringIO())
    assert upload(console, stack.cloud, [str(file)], dataset="orders", wait=True, deadline_seconds=5)


def test_an_upload_to_a_paused_stack_names_the_command_that_resumes_it(stack: Stack, tmp_path: Path) -> None:
    file, printed = tmp_path / "orders.csv", io.StringIO()
    file.write_text("a\n1\n")
    stack.uploads.store.put(PAUSE_KEY, "{}")
    upload(SafeConsole(file=printed), stack.cloud, [str(file)], dataset="orders", wait=False, deadline_seconds=5)
    assert "sluice resume" in printed.getvalue()


def uploaded(stack: Stack, *given: Path, **options: Any) -> tuple[bool, str]:
    """Run `sluice upload` without waiting for the outcome; return its result and what it prints."""
    printed = io.StringIO()
    console = SafeConsole(file=printed, soft_wrap=True, highlight=False)
    options = {"dataset": None, "wait": False, "deadline_seconds": 5, **options}
    return upload(console, stack.cloud, list(map(str, given)), **options), printed.getvalue()


def stored(key: str) -> bytes:
    body: bytes = boto3.client("s3").get_object(Bucket="landing", Key=key)["Body"].read()
    return body


def test_a_large_file_is_sent_in_parts_and_known_by_its_version(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    file.write_bytes(random.Random(1).randbytes(17 * 1024**2))
    sent: list[int] = []
    local = LocalFile(file, "large.csv", (), file.stat().st_size, str(file), sent.append)
    (tracked,), problems = stack.uploads.send({"incoming/large.csv": local})
    head = boto3.client("s3").head_object(Bucket="landing", Key="incoming/large.csv")
    assert head["ETag"].strip('"').endswith("-2"), "it came in two parts"
    assert (tracked.message.version_id, tracked.message.etag) == (head["VersionId"], head["ETag"].strip('"'))
    assert (sum(sent), problems) == (local.size_bytes, {})
    assert stored("incoming/large.csv") == file.read_bytes()


def test_a_path_that_is_not_utf_8_can_be_printed() -> None:
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    SafeConsole(file=printed).out(f"{os.fsdecode(b'/data/' + bytes([255]))} does not exist")
    printed.seek(0)
    assert printed.read() == "/data/\\udcff does not exist\n"


def test_a_file_that_changes_while_it_is_sent_is_reported(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id\n1\n")
    local = LocalFile(file, "a.csv", (), 5, str(file), lambda _: os.utime(file, (0, 0)))
    sent, problems = stack.uploads.send({"incoming/a.csv": local})
    assert (sent, list(map(type, problems.values()))) == ([], [FileUnusable])


def test_files_folders_and_zips_go_to_their_datasets_in_one_call(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "today.csv").write_text("a\n1\n")
    (tmp_path / "orders" / "today.tmp").touch()
    (tmp_path / "riots.csv").write_text("a\n2\n")
    large = random.Random(2).randbytes(9 * 1024**2)
    with zipfile.ZipFile(tmp_path / "penguins.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("north/a.csv", "a\n3\n")
        archive.writestr("b.csv", large)
    done, printed = uploaded(stack, tmp_path / "orders", tmp_path / "riots.csv", tmp_path / "penguins.zip")
    assert done
    listed = boto3.client("s3").list_objects_v2(Bucket="landing")["Contents"]
    assert {entry["Key"] for entry in listed} == {
        "incoming/orders/today.csv",
        "incoming/riots.csv",
        "incoming/penguins/penguins/north/a.csv",
        "incoming/penguins/penguins/b.csv",
    }
    assert stored("incoming/penguins/penguins/north/a.csv") == b"a\n3\n"
    assert stored("incoming/penguins/penguins/b.csv") == large
    assert "sluice contract new riots" in printed
    assert "1 not uploaded" in printed


def test_the_sample_of_a_new_contract_is_the_unpacked_member_of_a_zip(stack: Stack, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "january.zip", "w") as archive:
        archive.writestr("north/riots.csv", "a\n1\n")
    _, printed = uploaded(stack, tmp_path / "january.zip")
    assert "sluice contract new riots riots.csv" in printed


def test_the_command_that_proposes_a_contract_quotes_the_name_of_the_file(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "riots (1992) & more.csv"
    file.write_text("a\n1\n")
    _, printed = uploaded(stack, file)
    assert f"sluice contract new riots_1992_more '{file}'," in printed


@pytest.mark.parametrize("wait", [True, False])
def test_a_file_is_uploaded_even_if_its_state_cannot_be_read(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("a\n1\n")

    def refuse(_: Uploads) -> bool:
        raise S3Busy("no network")

    monkeypatch.setattr(Uploads, "is_paused", refuse)
    done, printed = uploaded(stack, file, wait=wait)
    assert done is not wait
    assert stored("incoming/orders/orders.csv")
    assert "no network" in printed


def test_a_file_that_cannot_be_sent_does_not_stop_the_others(stack: Stack, tmp_path: Path) -> None:
    good = tmp_path / "orders.csv"
    good.write_text("a\n1\n")
    with zipfile.ZipFile(tmp_path / "orders.zip", "w") as archive:
        archive.writestr("bad.csv", "x" * 100)
    broken = (tmp_path / "orders.zip").read_bytes().replace(b"xxxx", b"xyxx", 1)
    (tmp_path / "orders.zip").write_bytes(broken)
    done, printed = uploaded(stack, good, tmp_path / "orders.zip")
    assert not done
    assert stored("incoming/orders/orders.csv") == b"a\n1\n"
    assert "not uploaded  orders/bad.csv" in printed
    with pytest.raises(ArchiveUnusable):
        uploaded(stack, tmp_path / "orders.zip")


def test_a_given_dataset_takes_precedence_over_the_name_of_the_file(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "riots.csv"
    file.write_text("a\n1\n")
    _, printed = uploaded(stack, file, dataset="orders")
    assert stored("incoming/orders/riots.csv")
    assert "contract new" not in printed


def test_a_dataset_whose_contract_is_only_published_is_known(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "la-riots.csv"
    file.write_text("a\n1\n")
    stack.uploads.store.put("contracts/live/la_riots.yaml", "dataset: la_riots")
    assert stack.uploads.datasets() == sorted([*datasets(CONTRACTS), "la_riots"])
    uploaded(stack, file)
    assert stored("incoming/la_riots/la-riots.csv")


def test_a_file_whose_name_the_stack_ignores_is_not_uploaded(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "orders.tmp").touch()
    with pytest.raises(NameIgnored):
        uploaded(stack, tmp_path / "orders.tmp")


def test_very_many_uploads_are_looked_at_in_batches(stack: Stack) -> None:
    messages = [stack.message(f"{number}.csv") for number in range(_LOOKS_AT_ONCE + 10)]
    tracked = [TrackedUpload(message.key, message) for message in messages]
    for message in messages:
        stack.finish(message)
    stack.uploads.look(tracked)
    assert sum(one.done for one in tracked) == _LOOKS_AT_ONCE
    stack.uploads.look(tracked)
    assert all(one.done for one in tracked)


def test_an_upload_is_recorded_once_no_task_holds_it(stack: Stack) -> None:
    message = stack.message()
    tracked = [TrackedUpload("a.csv", message)]
    note = stack.hold(message, stack.message("b.csv"))
    assert not stack.uploads.wait_until_recorded(tracked, deadline_seconds=0)
    write_note(stack.uploads.store, note.with_uploads(note.uploads[1:]))
    assert stack.uploads.wait_until_recorded(tracked, deadline_seconds=0)


# --- a stack's status -------------------------------------------------------------------------------------------


def test_status_has_each_upload_once_in_its_state(stack: Stack) -> None:
    running, recording, given_up, retried, done = (stack.message(f"{name}.csv") for name in "abcde")
    stack.queue(running)
    stack.hold(running, recording, refining=running.run_id)
    stack.fail(given_up, given_up=True)
    stack.queue(given_up, "DeadLetterQueueUrl")
    stack.fail(retried)
    stack.finish(recording)
    stack.finish(done)
    document = stack.document()
    assert document["queue"] == {"waiting": 1, "being_worked_on": 0, "given_up": 1}
    assert [(one["run_id"], one["is_refined"]) for one in document["in_progress"]] == [(running.run_id, True)]
    assert document["unrecorded"] == 1
    failed = {one["run_id"]: (one["given_up"], one["code"]) for one in document["failed"]}
    assert failed == {given_up.run_id: (True, "s3_busy"), retried.run_id: (False, "s3_busy")}
    assert {one["run_id"] for one in document["finished"]} == {recording.run_id, done.run_id}
    shown = stack.shown()
    for run, state in ((running, "running"), (given_up, "failed"), (retried, "retrying"), (done, "published")):
        assert f"{run.run_id[:8]}  {state}" in shown
    assert "not recorded in Prefect yet: 1" in shown
    assert shown.count("S3Busy: try again") == 2


def test_an_upload_stays_failed_until_it_has_an_outcome_of_that_attempt(stack: Stack) -> None:
    message = stack.message()
    stack.finish(message)
    again = replace(message, attempt=1)
    attempt = stack.fail(again, given_up=True)
    assert status_of(stack.uploads, limit=5).failed == [attempt]
    stack.finish(again)
    assert status_of(stack.uploads, limit=5).failed == []


def test_status_shows_the_newest_failures_and_counts_the_others(stack: Stack) -> None:
    for number in range(3):
        stack.fail(stack.message(f"{number}.csv"))
    found = status_of(stack.uploads, limit=2)
    assert (len(found.failed), found.failed_count) == (2, 3)


def test_an_upload_that_is_retried_is_shown_once_with_the_earlier_reason(stack: Stack) -> None:
    message = stack.message()
    stack.fail(message)
    stack.hold(message)
    shown = stack.shown()
    assert (shown.count(message.key), shown.count("S3Busy: try again")) == (1, 1)
    document = stack.document()
    assert (len(document["in_progress"]), len(document["failed"])) == (1, 1)


def test_an_upload_that_was_given_up_and_not_recorded_is_not_in_progress(stack: Stack) -> None:
    message = stack.message()
    stack.hold(message)
    stack.fail(message, given_up=True)
    found = status_of(stack.uploads, limit=5)
    assert (found.in_progress, found.unrecorded, len(found.failed)) == ([], 1, 1)


def test_an_upload_recorded_already_is_not_counted_as_unrecorded(stack: Stack) -> None:
    message = stack.message()
    note = stack.hold(message)
    recorded = [noted.model_copy(update={"recorded": True}) for noted in note.uploads]
    write_note(stack.uploads.store, note.with_uploads(recorded))
    stack.finish(message)
    assert status_of(stack.uploads, limit=5).unrecorded == 0


def test_status_shows_whether_the_stack_is_paused(stack: Stack) -> None:
    assert stack.document()["paused"] is False
    stack.uploads.store.put(PAUSE_KEY, "{}")
    assert stack.document()["paused"] is True
    assert "sluice resume" in stack.shown()


def test_only_the_newest_notes_are_read(stack: Stack) -> None:
    for number in range(3):
        stack.hold(stack.message(f"{number}.csv"), number=number)
    held = read_held_uploads(stack.uploads.store, max_notes=2)
    assert (len(held.by_run), held.more) == (2, True)


# --- searches -----------------------------------------------------------------------------------------------------


def landed(stack: Stack, key: str) -> UploadMessage:
    """Put an object into the landing bucket, and return the message for its upload."""
    put = boto3.client("s3").put_object(Bucket="landing", Key=key, Body=b"x")
    return replace(stack.message(), key=key, version_id=put["VersionId"])


def indexed(stack: Stack, receipt: Receipt) -> None:
    dataset = receipt.contract.dataset
    entry = IndexEntry(bucket="landing", key=receipt.source.key, dataset=dataset, latest=IndexedRun.of(receipt))
    stack.uploads.store.put(index_key(dataset, "landing", receipt.source.key), entry.model_dump_json(by_alias=True))


def searched(stack: Stack, text: str = "", *, limit: int = 20, **more: Any) -> dict[str, set[str]]:
    """Return the run IDs that `sluice status` finds, grouped by the state of their uploads."""
    found = status_of(stack.uploads, limit=limit, wanted=Wanted(text, **more))
    return {
        "waiting": {one.run_id for one in found.waiting},
        "running": {one.noted.run_id for one in found.in_progress},
        "failed": {one.run_id for one in found.failed},
        "finished": {one.run_id for one in found.receipts},
    }


_NOTHING: dict[str, set[str]] = {"waiting": set(), "running": set(), "failed": set(), "finished": set()}


@pytest.mark.parametrize("text", ["monday.csv", "mon", "orders/monday.csv", "incoming/orders/monday.csv"])
def test_a_file_is_found_by_its_name_in_any_state(stack: Stack, text: str) -> None:
    versions = [landed(stack, "incoming/orders/monday.csv") for _ in range(4)]
    other = landed(stack, "incoming/orders/tuesday.csv")
    indexed(stack, stack.finish(other))
    waiting, running, failed, finished = versions
    stack.hold(running, other)
    stack.fail(failed)
    stack.finish(finished)
    expected = zip(_NOTHING, versions, strict=True)
    assert searched(stack, text) == {state: {message.run_id} for state, message in expected}
    assert waiting.run_id[:8] in stack.shown(Wanted(text))


def test_the_runs_of_a_dataset_are_found_by_the_index(stack: Stack) -> None:
    done, elsewhere, held = (
        landed(stack, key) for key in ("incoming/orders/a.csv", "incoming/b.csv", "incoming/c.csv")
    )
    indexed(stack, stack.finish(done))
    stack.finish(elsewhere)
    stack.hold(held)
    assert searched(stack, "orders") == {**_NOTHING, "finished": {done.run_id}}
    assert searched(stack, "penguins") == _NOTHING


def test_a_run_is_found_by_eight_characters_of_its_id(stack: Stack) -> None:
    done, failed = stack.message("a.csv"), stack.message("b.csv")
    stack.finish(done)
    stack.fail(failed)
    assert searched(stack, done.run_id[:8]) == {**_NOTHING, "finished": {done.run_id}}
    assert searched(stack, failed.run_id[:8]) == {**_NOTHING, "failed": {failed.run_id}}


def test_failed_uploads_are_the_rejected_ones_and_those_whose_attempt_failed(stack: Stack) -> None:
    good, rejected, failed, held = (landed(stack, f"incoming/orders/{name}.csv") for name in "abcd")
    for receipt in (stack.finish(good), stack.finish(rejected, Status.REJECTED)):
        indexed(stack, receipt)
    stack.fail(failed)
    stack.hold(held)
    expected = {**_NOTHING, "failed": {failed.run_id}, "finished": {rejected.run_id}}
    assert searched(stack, failed=True) == expected
    assert searched(stack, "orders", failed=True) == expected
    assert searched(stack, "orders", failed=True, limit=1) == expected


def test_only_uploads_since_the_given_time_are_shown(stack: Stack) -> None:
    done = stack.finish(stack.message())
    now = datetime.now(UTC)
    assert searched(stack, since=now - timedelta(hours=1)) == {**_NOTHING, "finished": {done.run_id}}
    assert searched(stack, since=now + timedelta(hours=1)) == _NOTHING
    assert "No matching uploads" in stack.shown(Wanted(since=now + timedelta(hours=1)))


def test_what_a_list_leaves_out_is_counted(stack: Stack) -> None:
    for number in range(3):
        stack.finish(stack.message(f"{number}.csv"))
    assert status_of(stack.uploads, limit=2).older == 1
    assert first_of(["a", "b", "c"], 2) == ["a", "b", "and 1 more"]
    assert first_of(["a", "b"], 2) == ["a", "b"]


def test_a_long_list_of_receipts_is_read_completely(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {stack.finish(stack.message(f"{number}.csv")).run_id for number in range(5)}
    assert stack.uploads.runs_with_receipt().keys() == runs
    monkeypatch.setattr(uploads_module, "_PAGE", 2)
    assert stack.uploads.runs_with_receipt().keys() == runs


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", datetime(2026, 1, 2, 10, 30, tzinfo=UTC)),
        ("2 h", datetime(2026, 1, 2, 10, tzinfo=UTC)),
        ("3d", datetime(2025, 12, 30, 12, tzinfo=UTC)),
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T08:00+01:00", datetime(2026, 1, 1, 7, tzinfo=UTC)),
    ],
)
def test_since_is_an_age_or_a_time(text: str, moment: datetime) -> None:
    assert moment_of(text, datetime(2026, 1, 2, 12, tzinfo=UTC)) == moment


@pytest.mark.parametrize("text", ["yesterday", "2w", "", "-1h", "99999999999d"])
def test_an_invalid_since_is_rejected(text: str) -> None:
    with pytest.raises(TimeUnreadable):
        moment_of(text, datetime.now(UTC))


def test_unreadable_objects_are_named_and_hide_no_others(stack: Stack) -> None:
    done, failed, held = (stack.message(f"{name}.csv") for name in "abc")
    stack.finish(done)
    stack.fail(failed)
    stack.hold(held)
    unreadable = [f"receipts/{'2' * 32}.json", f"attempts/{'3' * 32}.json", "batches/task/2.json", "batches/other"]
    for key in unreadable:
        stack.uploads.store.put(key, "{}")
    found = status_of(stack.uploads, limit=5)
    assert [receipt.run_id for receipt in found.receipts] == [done.run_id]
    assert [attempt.run_id for attempt in found.failed] == [failed.run_id]
    assert [one.noted.run_id for one in found.in_progress] == [held.run_id]
    assert sorted(stack.uploads.unreadable) == sorted(f"s3://published/{key}" for key in unreadable)
    assert sorted(stack.document()["unreadable"]) == sorted(stack.uploads.unreadable)
    printed = io.StringIO()
    print_unreadable(SafeConsole(file=printed, soft_wrap=True), stack.uploads)
    assert printed.getvalue().count("unreadable s3://") == len(unreadable)
