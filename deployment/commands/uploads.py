"""Uploads files to a deployed stack, and follows them until each is published, rejected or failed.

The state of an upload is in S3: in its receipt, in the record of its last failed attempt, and in the batch note of the
task that is processing it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from heapq import nsmallest
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from string import hexdigits
from typing import NamedTuple

from blocks.at_once import at_once
from blocks.aws_errors import AwsRefused
from blocks.object_store import ObjectStore
from blocks.pause import Pause
from blocks.settings import CONTRACTS
from blocks.upload_queue import count_messages
from deployment.commands.sending import send
from deployment.commands.upload_files import LocalFile, datasets
from deployment.commands.upload_search import FoundRuns, Wanted, find_runs
from deployment.deployed_stack import DeployedStack
from flows.pipeline.attempts import (
    Attempt,
    AttemptUnreadable,
    FoundAttempt,
    attempt_key,
    find_attempt,
    read_attempt,
    runs_with_attempt,
)
from flows.pipeline.commit import read_receipt
from flows.pipeline.held_uploads import HeldUploads, read_held_uploads
from flows.pipeline.published_contracts import is_replaced, live_datasets
from flows.pipeline.receipt import RECEIPTS, Receipt, ReceiptUnreadable, Status, receipt_key
from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.errors import SluiceError
from lambda_trigger.message import UploadMessage

_POLL_SECONDS = 0.4
_PAGE = 1_000  # the number of keys in one response of S3
_NEWEST_NOTES = 100  # enough, because uploads that are being followed are in the newest batch notes
_LOOKS_AT_ONCE = 64  # how many uploads one poll checks, beginning with those checked longest ago


class UploadState(StrEnum):
    """The state of an upload, as shown to the user."""

    UPLOADED = "uploaded"
    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHED = "published"
    REJECTED = "rejected"
    FAILED = "failed"


_ENDINGS = {UploadState.PUBLISHED, UploadState.REJECTED, UploadState.FAILED}
_ORDER = list(UploadState)


@dataclass
class TrackedUpload:
    """An upload and its progress. Times are those of time.monotonic()."""

    name: str  # the name that is shown to the user
    message: UploadMessage  # identifies the object version
    started: float = field(default_factory=time.monotonic)
    stage: UploadState = UploadState.UPLOADED  # the current state, which only advances
    receipt: Receipt | None = None
    problem: str = ""  # why Sluice gave up on the upload, or why its receipt cannot be read
    note: str = ""  # why the last attempt failed, if the upload is tried again
    ended: float | None = None  # when the upload was published, rejected or failed
    looked_at: float = 0  # when the state was last checked

    @property
    def done(self) -> bool:
        """Return whether the upload was published, was rejected or failed."""
        return self.stage in _ENDINGS

    @property
    def seconds(self) -> float:
        """Return how many seconds the upload took or, if it is not done, has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    def reach(self, stage: UploadState) -> None:
        """Set the state if `stage` is later than the current state; otherwise do nothing."""
        if _ORDER.index(stage) > _ORDER.index(self.stage):
            self.stage = stage
            if stage in _ENDINGS:
                self.ended = time.monotonic()


class QueueLengths(NamedTuple):
    """The numbers of messages that are waiting, being processed, and in the dead-letter queue. SQS's counts may be a
    minute old."""

    waiting: int
    being_worked_on: int
    given_up: int


class Uploads:
    """Uploads files to one stack, and reads the state of its uploads.

    Attributes:
        unreadable: why receipts, attempts and notes could not be read so far, by S3 URI.
    """

    def __init__(self, cloud: DeployedStack) -> None:
        self._cloud = cloud
        self.unreadable: dict[str, str] = {}
        self._s3, self._sqs = cloud.client("s3"), cloud.client("sqs")
        self.store = ObjectStore(cloud.outputs["LandingBucket"], cloud.outputs["PublishedBucket"], client=self._s3)

    def send(self, files: Mapping[str, LocalFile]) -> tuple[list[TrackedUpload], dict[str, SluiceError]]:
        """Upload files, given by object key. Return the uploads and, by file name, the errors of files that were not
        uploaded."""
        started = time.monotonic()
        outcomes = send(self._s3, self._cloud.outputs["LandingBucket"], files)
        uploads = [
            TrackedUpload(files[key].name, message, started)
            for key, message in outcomes.items()
            if isinstance(message, UploadMessage)
        ]
        problems = {files[key].name: error for key, error in outcomes.items() if isinstance(error, SluiceError)}
        return uploads, problems

    def upload(self, path: Path, key: str, name: str | None = None) -> TrackedUpload:
        """Upload one file to an object key. Raise a SluiceError, such as AwsRefused, if it could not be uploaded."""
        file = LocalFile(path, name or path.name, (), path.stat().st_size, str(path))
        uploads, problems = self.send({key: file})
        for problem in problems.values():
            raise problem
        return uploads[0]

    def look(self, uploads: Iterable[TrackedUpload]) -> None:
        """Check at most 64 unfinished uploads, those checked longest ago first, and update their states."""
        unfinished = nsmallest(_LOOKS_AT_ONCE, (one for one in uploads if not one.done), key=lambda one: one.looked_at)
        if not unfinished:
            return
        held = read_held_uploads(self.store, max_notes=_NEWEST_NOTES).by_run
        queue = self.queue_lengths()
        list(at_once(self._look_for_outcome, unfinished))
        for upload in unfinished:
            upload.looked_at = time.monotonic()
            if upload.message.run_id in held:
                upload.reach(UploadState.RUNNING)
            elif queue.waiting or queue.being_worked_on:
                upload.reach(UploadState.QUEUED)

    def _look_for_outcome(self, upload: TrackedUpload) -> None:
        run_id = upload.message.run_id
        try:
            upload.receipt = read_receipt(self.store, run_id)
            attempt = None if upload.receipt else read_attempt(self.store, run_id)
        except ReceiptUnreadable as error:
            upload.problem = str(error)
            upload.reach(UploadState.FAILED)
            return
        except AttemptUnreadable as error:
            upload.note = f"an attempt failed; {error}"
            return
        if upload.receipt is not None:
            upload.note = ""
            published = upload.receipt.status is Status.PUBLISHED
            upload.reach(UploadState.PUBLISHED if published else UploadState.REJECTED)
        elif attempt is not None and attempt.given_up:
            upload.note, upload.problem = "", attempt.reason
            upload.reach(UploadState.FAILED)
        elif attempt is not None:
            upload.note = f"an attempt failed: {attempt.reason}; retrying"

    def follow(
        self, uploads: list[TrackedUpload], *, deadline_seconds: float, on_look: Callable[[], None] = lambda: None
    ) -> bool:
        """Poll until all uploads are done, and call `on_look` after each poll. Return False if they are not done after
        `deadline_seconds`."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            self.look(uploads)
            on_look()
            if all(upload.done for upload in uploads):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)

    def wait_until_recorded(self, uploads: Iterable[TrackedUpload], *, deadline_seconds: float) -> bool:
        """Wait until no task holds these uploads, which means that Prefect shows their outcomes. Return False if a task
        still holds one after `deadline_seconds`."""
        runs = {upload.message.run_id for upload in uploads}
        deadline = time.monotonic() + deadline_seconds
        while runs & read_held_uploads(self.store, max_notes=_NEWEST_NOTES).by_run.keys():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def runs_with_receipt(self) -> dict[str, datetime]:
        """Return the IDs of all runs with a receipt, with the time when it was written, newest first. If there are
        many, the runs are listed concurrently, in 16 parts by the first digit of their IDs."""
        first = list(islice(self.store.list_keys(RECEIPTS), _PAGE))
        starts = [RECEIPTS + digit for digit in hexdigits[:16]] if len(first) == _PAGE else []
        parts = at_once(lambda start: list(self.store.list_keys(start)), starts)
        found = list(chain.from_iterable(parts)) or first
        listed = sorted(found, key=itemgetter(1), reverse=True)
        return {key.removeprefix(RECEIPTS).removesuffix(".json"): written for key, written in listed}

    def published_contracts(self) -> list[str]:
        """Return the datasets with a published contract, or an empty list if there is no permission to list them."""
        with suppress(AwsRefused):
            return sorted(live_datasets(self.store))
        return []

    def judged_before_publication(self, receipts: Iterable[Receipt]) -> list[str]:
        """Return the datasets whose live contract differs from the contract in one of these receipts, or an empty list
        if the contracts cannot be read."""
        with suppress(AwsRefused, ContractInvalid):
            used = {receipt.contract.content_hash: receipt.contract for receipt in receipts}.values()
            return sorted({each.dataset for each in used if is_replaced(self.store, each)})
        return []

    def datasets(self) -> list[str]:
        """Return the datasets that have a contract in this project or a published contract."""
        return datasets(CONTRACTS, self.published_contracts())

    def find(self, wanted: Wanted, limit: int) -> FoundRuns:
        """Return the runs that match a search; see `upload_search.find_runs`."""
        return find_runs(self.store, wanted, self._cloud.outputs["IncomingPrefix"], limit)

    def receipts(self, run_ids: Iterable[str]) -> Iterator[Receipt]:
        """Yield the receipts of these runs. Skip missing receipts, and add unreadable ones to `unreadable`."""
        return filter(None, at_once(self._readable_receipt, run_ids))

    def _readable_receipt(self, run_id: str) -> Receipt | None:
        try:
            return read_receipt(self.store, run_id)
        except ReceiptUnreadable as error:
            self.unreadable[self.store.published_address(receipt_key(run_id))] = str(error)
            return None

    def held(self) -> HeldUploads:
        """Return the uploads that tasks hold, or held when they died."""
        held = read_held_uploads(self.store)
        self.unreadable |= {self.store.published_address(key): reason for key, reason in held.unreadable.items()}
        return held

    def runs_with_attempt(self) -> dict[str, datetime]:
        """Return the IDs of all runs with a failed attempt, with the time when it was written, newest first."""
        return dict(sorted(runs_with_attempt(self.store), key=lambda one: one[1], reverse=True))

    def attempts(self, run_ids: Iterable[str]) -> Iterator[Attempt]:
        """Yield the last failed attempts of these runs; skip runs for which `find_attempt` returns None."""
        return (found.attempt for found in at_once(self.find_attempt, run_ids) if found)

    def find_attempt(self, run_id: str) -> FoundAttempt | None:
        """Return the last failed attempt of a run with its stored object, or None if there is none. Also return None,
        and add the reason to `unreadable`, if it cannot be read."""
        try:
            return find_attempt(self.store, run_id)
        except AttemptUnreadable as error:
            self.unreadable[self.store.published_address(attempt_key(run_id))] = str(error)
            return None

    def queue_lengths(self) -> QueueLengths:
        """Return the numbers of messages that are waiting, being processed, and in the dead-letter queue."""
        outputs = self._cloud.outputs
        waiting, being_worked_on = count_messages(self._sqs, outputs["QueueUrl"])
        return QueueLengths(waiting, being_worked_on, sum(count_messages(self._sqs, outputs["DeadLetterQueueUrl"])))

    def is_paused(self) -> bool:
        return Pause(self._cloud.outputs["PublishedBucket"], self._s3).is_on()
