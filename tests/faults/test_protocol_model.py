"""Tests the promises [once], [order] and [newest] in every order of events that Hypothesis finds.

The workers run the real drain loop, stages and store, one AWS call at a time. Anything may happen between two calls:
other workers continue, a worker is killed before or after the server has executed its call, a response is lost, a
visibility timeout expires, a message is delivered again, or the file is uploaded again. A manual re-run may be forced
or may come before the event, and two workers may get different results, as they do if a contract changes or a custom
step is not deterministic. All versions have the same timestamp, so that only S3's list orders those without an event.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blocks.object_store import ObjectFacts, ObjectStore
from blocks.settings import PipelineSettings
from blocks.upload_queue import ReceivedMessage, UploadQueue
from flows.pipeline.commit import read_receipt
from flows.pipeline.drain import Drain, Live
from flows.pipeline.job import Fetched, Parts, TaskIdentity, UploadJob
from flows.pipeline.protocol import IndexedRun, IndexEntry, index_key
from flows.pipeline.receipt import Receipt, Status, receipt_key
from flows.pipeline.run import run_upload
from flows.refinery.checks import RejectionReason
from flows.refinery.contract.loading import Contracts
from flows.refinery.errors import SluiceError
from flows.refinery.output_files import OutputFile, TakeAway
from flows.refinery.refine import Refined
from lambda_trigger.message import UploadMessage
from tests.faults.catalogue import fault
from tests.faults.in_memory_aws import OUTLETS, Fate, InMemoryS3, InMemorySqs, Message, Stepper

KEYS = ("incoming/orders/monday.csv", "incoming/orders/tuesday.csv")
DATASETS = ("orders", "returns")
REJECTED = "rejected"
RESULTS = st.sampled_from(["usual", "usual", "usual", "other", REJECTED])
FATES: tuple[Fate, ...] = (
    "go",
    "go",
    "go",
    "die before",
    "die after",
    "lose the answer",
    "retry after a lost answer",
)


@dataclass
class ModelWorker:
    """A worker that holds a message, or a manual run.

    Attributes:
        message: the message that the worker holds; None for a manual run.
        overtaken: whether the message became visible while the worker was running, or another worker also holds it.
        begin_again: starts a manual run again, as a person does after a failed run; None for a worker.
    """

    stepper: Stepper
    message: ReceivedMessage | None
    overtaken: bool = False
    begin_again: Callable[[], None] | None = None


def refined(run_id: str, result: str, work_dir: Path, take_away: TakeAway) -> Refined:
    """Return the result of refining a file: two rows, the first of which is uploaded early, even if the file is then
    rejected."""
    outputs = []
    for number in range(2):
        body = f"{run_id} {result} {number}".encode()
        path = work_dir / f"out-{number}"
        path.write_bytes(body)
        extension = ".1.parquet" if number else ".parquet"
        outputs.append(OutputFile(path, "", 1, len(body), hashlib.sha256(body).hexdigest(), extension))
    take_away.take("data", outputs[0])
    if result == REJECTED:
        reason = RejectionReason(code="rule", message="the file is bad")
        return _refined(dropped={"file_rejected": 2}, rejected=(reason,))
    return _refined(rows_published=2, outputs=tuple(outputs))


def _refined(**changes: Any) -> Refined:
    nothing: dict[str, Any] = {"quarantined": {}, "checks": (), "rejected": (), "dropped": {}, "outputs": ()}
    return Refined(**{"rows_in": 2, "rows_published": 0, "quarantine": (), "fitted": {}, **nothing, **changes})


def process(result: str, parts: Parts, job: UploadJob) -> Receipt:
    """Run the stages of an upload. Fetching and refining are replaced by a given result."""

    def call(stage: Callable[..., Any], *values: Any) -> Any:
        if stage.__name__ == "fetch":
            *_, contract, _earlier, work_dir = values
            # All timestamps are equal, so that S3's list must order versions without a sequencer.
            facts = ObjectFacts(job.upload.version_id, job.upload.etag, 1, "2026-01-01T00:00:00.000000Z")
            return Fetched(work_dir / "source", work_dir, facts, contract)
        if stage.__name__ == "refine":
            fetched, _on_progress, take_away = values
            return refined(job.upload.run_id, result, fetched.work_dir, take_away)
        return stage(*values)

    return run_upload(parts, job, call)


@cache
def contracts_that(on_reupload: str) -> Contracts:
    """Return three contracts: the default one, one for the orders, and one with the other re-upload policy, which a
    manual run may use instead."""
    other = {"replace": "append", "append": "replace"}[on_reupload]
    policies = {"orders": on_reupload, "returns": other}
    with tempfile.TemporaryDirectory(prefix="sluice-model-") as folder:
        texts = {name: f"source: incoming/{name}/*\non_reupload: {policy}\n" for name, policy in policies.items()}
        for name, more in {"default": "", **texts}.items():
            (Path(folder) / name).mkdir()
            (Path(folder) / name / "contract.yaml").write_text(f"dataset: {name}\n{more}")
        return Contracts.load(Path(folder))


class Protocol(RuleBasedStateMachine):
    """A model with uploads, a queue and workers. The rules are what can happen, and the invariants must always hold."""

    on_reupload = "replace"

    @initialize()
    def begin(self) -> None:
        self.s3 = InMemoryS3()
        self.queue = InMemorySqs()
        self.tasks = itertools.count()
        self.queue.watch_deletions(self.has_its_receipt)
        self.store = ObjectStore("landing", "published", client=self.s3)
        self.uploads: list[UploadMessage] = []
        self.workers: list[ModelWorker] = []
        self.dead: list[ModelWorker] = []
        limits = PipelineSettings(
            stack="sluice",
            landing_bucket="landing",
            published_bucket="published",
            queue_url="https://sqs/queue",
            retry_delay_seconds=0,
        )
        queue = UploadQueue(limits.queue_url, client=self.queue)
        self.parts = Parts(limits, self.store, queue, partial(contracts_that, self.on_reupload), lambda _: None)

    # --- what can happen --------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.uploads) < 6)
    @rule(key=st.sampled_from(KEYS))
    def upload(self, key: str) -> None:
        number = len(self.uploads) + 1
        version = UploadMessage(
            bucket="landing",
            key=key,
            version_id=f"v{number}",
            etag=f"{number:032x}",
            size_bytes=1,
            sequencer=f"{number:018X}",
        )
        self.uploads.append(version)
        self.s3.uploads.append(version)
        self.queue.send(version.to_json())

    @precondition(lambda self: self.uploads)
    @rule(data=st.data())
    def event_comes_again(self, data: st.DataObject) -> None:
        self.queue.send(data.draw(st.sampled_from(self.uploads)).to_json())

    @precondition(lambda self: self.uploads)
    @rule(data=st.data())
    def force_a_rerun(self, data: st.DataObject) -> None:
        """Force a re-run, possibly before the first run is done."""
        place = data.draw(st.integers(0, len(self.uploads) - 1))
        again = replace(self.uploads[place], attempt=self.uploads[place].attempt + 1)
        self.uploads[place] = again
        self.queue.send(again.to_json())

    @precondition(lambda self: self.uploads and len(self.workers) < 4)
    @rule(data=st.data(), dataset=st.sampled_from(DATASETS), result=RESULTS)
    def force_a_rerun_by_hand(self, data: st.DataObject, dataset: str, result: str) -> None:
        """Start a manual run, which may be the first run of the upload and may use another contract. It is repeated
        until it is done."""
        self.start_by_hand(data.draw(st.sampled_from(self.uploads)), dataset, result)

    @precondition(lambda self: self.queue.messages(visible=True) and len(self.workers) < 4)
    @rule(data=st.data(), result=RESULTS)
    def receive(self, data: st.DataObject, result: str) -> None:
        self.start(data.draw(st.sampled_from(self.queue.messages(visible=True))), result)

    @precondition(lambda self: self.queue.messages(visible=True) and len(self.workers) < 3)
    @rule(data=st.data(), result=RESULTS, other=RESULTS)
    def receive_twice(self, data: st.DataObject, result: str, other: str) -> None:
        """Deliver the same message to two workers, because SQS may deliver a message more than once."""
        message = data.draw(st.sampled_from(self.queue.messages(visible=True)))
        self.start(message, result)
        self.start(message, other)

    @precondition(lambda self: self.queue.messages(visible=False))
    @rule(data=st.data())
    def visibility_ends(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.queue.messages(visible=False)))
        message.visible = True
        for worker in self.workers:
            if worker.message and worker.message.message_id == message.message_id:
                worker.overtaken = True

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), fate=st.sampled_from(FATES), steps=st.integers(1, 6))
    def work(self, data: st.DataObject, fate: Fate, steps: int) -> None:
        """Run one worker for `steps` AWS calls, and apply `fate` to the last one."""
        worker = data.draw(st.sampled_from(self.workers))
        for _ in range(steps - 1):
            self.step(worker, "go")
        self.step(worker, fate)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(steps=st.integers(1, 25))
    def work_side_by_side(self, steps: int) -> None:
        """Advance all workers alternately, so that each reads before the others act on what they have read."""
        for _ in range(steps):
            for worker in list(self.workers):
                self.step(worker, "go")

    # --- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def current_data_exists(self) -> None:
        standing = {(receipt.run_id, receipt.attempt) for receipt in self.receipts()}
        for key in self.s3.keys("index/"):
            current = self.entry(key).current
            if current is None or (current.run_id, current.attempt) not in standing:
                continue  # readers trust receipts, and this receipt is being replaced
            for data_key in current.data_keys:
                assert data_key in self.s3.objects, "the index points at data that is not there"

    @invariant()
    def a_receipt_has_the_digests_of_the_stored_bytes(self) -> None:
        for receipt in self.receipts():
            for output in receipt.outputs:
                stored = self.s3.objects.get(output.key)
                assert stored is None or hashlib.sha256(stored.body).hexdigest() == output.sha256

    def has_its_receipt(self, message: Message) -> None:
        """Check before each deletion of a message that its upload has a receipt, as the promise [order] requires."""
        upload = UploadMessage.from_json(message.body)
        standing = [receipt for receipt in self.receipts() if receipt.run_id == upload.run_id]
        assert any(receipt.attempt >= upload.attempt for receipt in standing), "a message was deleted without receipt"

    def teardown(self) -> None:
        if not hasattr(self, "s3"):
            return
        try:
            self.come_to_rest()
            self.every_upload_has_its_receipt_once()
            for key, dataset in itertools.product(KEYS, DATASETS):
                self.newest_is_current(key, dataset)
            self.nothing_else_is_published()
        finally:
            for worker in self.workers:
                while not worker.stepper.over:
                    worker.stepper.step("die before")

    def come_to_rest(self) -> None:
        while self.workers or self.queue.messages(visible=True) or self.queue.messages(visible=False):
            if self.workers:
                self.step(self.workers[0], "go")
                continue
            for message in self.queue.messages(visible=False):
                message.visible = True
            self.start(self.queue.messages(visible=True)[0], "usual")

    def every_upload_has_its_receipt_once(self) -> None:
        standing = {receipt.run_id: receipt for receipt in self.receipts()}
        assert set(standing) == {upload.run_id for upload in self.uploads}
        for upload in self.uploads:
            assert standing[upload.run_id].attempt >= upload.attempt
        for run_id, receipt in standing.items():
            assert self.s3.put.count(receipt_key(run_id)) <= receipt.attempt + 1, "an attempt has two receipts"

    def newest_is_current(self, key: str, dataset: str) -> None:
        judged = [each for each in self.receipts() if (each.source.key, each.contract.dataset) == (key, dataset)]
        published = [each for each in judged if each.status is Status.PUBLISHED]
        path = index_key(dataset, "landing", key)
        if path not in self.s3.objects:
            assert not judged
            return
        entry = self.entry(path)
        newest = max(published, key=self.number_of, default=None)
        if entry.current is not None:
            assert newest is not None
            assert (entry.current.run_id, entry.current.attempt) == (newest.run_id, newest.attempt)
        elif newest is not None:
            assert entry.withdrawn is not None
            assert self.number_of(entry.withdrawn) > self.number_of(newest), "published, and nobody sees it"
        assert entry.retired == ()

    def number_of(self, run: Receipt | IndexedRun) -> int:
        """Return the position of a run's upload in the order of the uploads."""
        return [upload.run_id for upload in self.uploads].index(run.run_id)

    def nothing_else_is_published(self) -> None:
        entries = [self.entry(key) for key in self.s3.keys("index/")]
        wanted = {key for entry in entries if entry.current for key in entry.current.data_keys}
        for receipt in self.receipts():
            if self.parts.contracts.named(receipt.contract.dataset).on_reupload == "append":
                wanted |= {output.key for output in receipt.outputs}
        there = set(self.s3.keys("data/"))
        assert wanted <= there, "published data is lost"
        # The message of an overtaken worker is not delivered again. If that worker is killed, its output stays until
        # the bucket is reconciled, and no receipt ever references it.
        excused = {worker.stepper for worker in self.dead if worker.overtaken and worker.stepper.was_killed}
        unexplained = {key for key in there - wanted if not excused.intersection(self.s3.wrote[key])}
        assert not unexplained, f"nobody answers for {sorted(unexplained)}"

    # --- helpers ------------------------------------------------------------------------------------------------

    def start(self, message: Message, result: str) -> None:
        received = self.queue.deliver(message)
        live = Live(partial(process, result, self.parts), lambda: True)
        parts = replace(self.parts, queue=UploadQueue(self.parts.queue.queue_url, client=self.queue))  # one per task
        drain = Drain(
            parts,
            TaskIdentity(task_arn=f"arn:aws:ecs:r:1:task/sluice/{next(self.tasks):04}"),
            live,
            OUTLETS,
            ask_for_tasks=lambda _: None,
            is_paused=lambda: False,
            end_of_task=lambda _: None,
        )
        holders = [each for each in self.workers if each.message and each.message.message_id == message.message_id]
        for holder in holders:
            holder.overtaken = True
        self.workers.append(ModelWorker(Stepper(lambda: drain.work([received])), received, overtaken=bool(holders)))

    def start_by_hand(self, upload: UploadMessage, dataset: str, result: str) -> None:
        def work() -> None:
            existing = read_receipt(self.store, upload.run_id)
            attempt = existing.attempt + 1 if existing else 0
            sequencer = existing.source.sequencer if existing else None  # as job_by_hand finds them
            by_hand = replace(upload, attempt=attempt, sequencer=sequencer)
            process(result, self.parts, UploadJob(by_hand, contract=self.parts.contracts.named(dataset)))

        again = partial(self.start_by_hand, upload, dataset, result)
        self.workers.append(ModelWorker(Stepper(work), None, begin_again=again))

    def step(self, worker: ModelWorker, fate: Fate) -> None:
        if not worker.stepper.over:
            worker.stepper.step(fate)
        if not worker.stepper.over or worker not in self.workers:
            return
        self.workers.remove(worker)
        self.dead.append(worker)
        error = worker.stepper.error
        if worker.begin_again and (worker.stepper.was_killed or isinstance(error, SluiceError)):
            worker.begin_again()
        elif error:
            raise error

    def receipts(self) -> list[Receipt]:
        return [Receipt.from_json(self.s3.objects[key].body) for key in self.s3.keys("receipts/")]

    def entry(self, key: str) -> IndexEntry:
        return IndexEntry.model_validate_json(self.s3.objects[key].body)


# In seconds. If Hypothesis finds an example that fails, it needs minutes to simplify it.
PATIENCE = pytest.mark.timeout(3_600)


class Appending(Protocol):
    """The same model with a contract that keeps the output of earlier versions of a key."""

    on_reupload = "append"


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Disable the log of the drain loop, because there are thousands of runs."""
    with caplog.at_level("CRITICAL"):
        yield


@PATIENCE
@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(
            Protocol,
            id="replace",
            marks=fault(
                "Queue and task",
                "any order of deliveries, kills, lost responses, re-uploads and forced re-runs (model)",
                expected="one receipt for each version, the newest output is current, nothing is published twice",
            ),
        ),
        pytest.param(Appending, id="append"),
    ],
)
def test_in_any_order_of_events_nothing_is_lost_or_published_twice(machine: Any) -> None:
    explore(machine, examples=100, steps=30)


@PATIENCE
@pytest.mark.slow
@pytest.mark.parametrize("machine", [Protocol, Appending])
def test_in_many_more_orders_nothing_is_lost_or_published_twice(machine: Any) -> None:
    explore(machine, examples=1_000, steps=50)


def explore(machine: Any, *, examples: int, steps: int) -> None:
    """Explore the model with the given number of examples and at most `steps` steps in each."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )
