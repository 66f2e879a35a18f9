"""The soak's input. It acts as a user who uploads files, as S3 with late and duplicate events, and as Lambda with its
retries."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lambda_trigger.dispatch import Dispatcher
from lambda_trigger.handler import RecordsFailed, TriggerConfig, handle_event
from lambda_trigger.message import UploadMessage
from tests.faults.saboteur import Sabotage, lay
from tests.faults.soak_files import SoakFile
from tests.faults.soak_ground import Ground

_LATE, _TWICE, _TWO_RECORDS, _UNREADABLE = 0.2, 0.12, 0.1, 0.001
_AT_ONCE = 3
_INVOCATIONS_OF_AN_EVENT = 3  # Lambda retries an asynchronous event twice
_TROUBLE_PER_CALL = 0.04
_BOTO_TRIES = 4  # the same number as for the handler's clients
_MOST_WAITING = 150
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Uploaded:
    """A file, and the message for the object version that S3 has stored."""

    file: SoakFile
    message: UploadMessage

    @property
    def run_id(self) -> str:
        """Return the run ID of the upload."""
        return self.message.run_id


@dataclass
class Front:
    """Uploads the files and passes their events to the Lambda's handler.

    Attributes:
        uploaded: the files that were uploaded so far, in order.
        events: the number of events that were delivered, including repetitions.
        given_up: the number of times that Lambda gave up on an event, so that an operator had to send it again.
        unreadable: the number of messages that cannot be parsed.
        faults: the number of faults in the Lambda's calls, by type.
    """

    ground: Ground
    seed: int
    files: Iterable[SoakFile]
    uploaded: list[Uploaded] = field(default_factory=list)
    events: int = 0
    given_up: int = 0
    unreadable: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self._dice = random.Random(f"front {self.seed}")
        self._s3, self._sqs = self.ground.client("s3"), self.ground.client("sqs")
        self._due: list[tuple[int, int, Uploaded]] = []
        self._ties = itertools.count()
        self._trigger = self._make_trigger()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start uploading in a separate thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop uploading, and wait until the thread has ended."""
        self._stop.set()
        self._thread.join()

    @property
    def over(self) -> bool:
        """Return whether every file was uploaded and every event was delivered. Raise the error of the thread, if there
        is one."""
        if self.error:
            raise self.error
        return not self._thread.is_alive()

    def force(self, uploaded: Uploaded) -> None:
        """Request a re-run through the queue, and repeat the request up to 100 times until it succeeds."""
        again = dataclasses.replace(uploaded.message, attempt=1)
        for _ in range(100):
            try:
                self._trigger.dispatcher.dispatch(again)
                return
            except (BotoCoreError, ClientError):
                continue

    # --- uploading ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                at_work: list[Future[None]] = []
                for file in self.files:
                    if self._stop.is_set():
                        return
                    self._upload(file)
                    at_work = [*self._hand_over(file.number, pool), *(each for each in at_work if not each.done())]
                    self._wait_for_the_workers()
                self._hand_over(1_000_000_000, pool)
        except BaseException as error:  # noqa: BLE001 (the soak's main thread raises it)
            self.error = error

    def _upload(self, file: SoakFile) -> None:
        answer = self._s3.put_object(Bucket=self.ground.landing, Key=file.key, Body=file.body)
        message = UploadMessage(
            bucket=self.ground.landing,
            key=file.key,
            version_id=answer["VersionId"],
            etag=answer["ETag"].strip('"'),
            size_bytes=len(file.body),
            sequencer=f"{file.number:018X}",
        )
        uploaded = Uploaded(file, message)
        self.uploaded.append(uploaded)
        self._tell(uploaded, file.number + (self._dice.randint(1, 40) if self._dice.random() < _LATE else 0))
        if self._dice.random() < _TWICE:
            for _ in range(self._dice.randint(1, 3)):
                self._tell(uploaded, file.number + self._dice.randint(0, 150))
        if self._dice.random() < _UNREADABLE:
            self._sqs.send_message(QueueUrl=self.ground.queue_url, MessageBody=f"nobody reads this {file.number}")
            self.unreadable += 1

    def _tell(self, uploaded: Uploaded, due: int) -> None:
        heapq.heappush(self._due, (due, next(self._ties), uploaded))

    def _wait_for_the_workers(self) -> None:
        while not self._stop.is_set() and self.ground.count()["waiting"] > _MOST_WAITING:
            time.sleep(_POLL_SECONDS)

    # --- acting as S3 and Lambda --------------------------------------------------------------------------------

    def _hand_over(self, now: int, pool: ThreadPoolExecutor) -> list[Future[None]]:
        """Deliver the events that are due, some of them together."""
        handed = []
        while self._due and self._due[0][0] <= now:
            together = [heapq.heappop(self._due)[2]]
            if self._due and self._dice.random() < _TWO_RECORDS:
                together.append(heapq.heappop(self._due)[2])
            handed.append(pool.submit(self._invoke, event_of(together)))
        return handed

    def _invoke(self, event: dict[str, Any]) -> None:
        """Act as Lambda, which invokes the function up to three times for an asynchronous event, and then as an
        operator who sends the event again until it is dispatched."""
        self.events += 1
        for tries in itertools.count(1):
            try:
                handle_event(event, self._trigger)
                return
            except RecordsFailed:
                if tries == _INVOCATIONS_OF_AN_EVENT:
                    self.given_up += 1

    def _make_trigger(self) -> TriggerConfig:
        session = self.ground.session()
        lay(self._troubles(), session, lambda met: self.faults.update([met.do]))
        config = Config(proxies={}, s3={"addressing_style": "path"}, retries={"mode": "standard", "max_attempts": 4})
        return TriggerConfig(
            bucket=self.ground.landing,
            incoming_prefix="incoming/",
            dispatcher=Dispatcher(
                sqs=session.client("sqs", endpoint_url=self.ground.endpoint_url, config=config),
                step_functions=session.client("stepfunctions", endpoint_url=self.ground.endpoint_url, config=config),
                s3=session.client("s3", endpoint_url=self.ground.endpoint_url, config=config),
                queue_url=self.ground.queue_url,
                state_machine_arn=self.ground.state_machine_arn,
                published_bucket=self.ground.published,
                window_seconds=1,
            ),
        )

    def _troubles(self) -> Iterable[Sabotage]:
        dice = random.Random(f"lambda {self.seed}")
        for on in ("sqs.SendMessage", "sfn.StartExecution"):
            call = 1
            for _ in range(200):
                call += 1 + int(dice.expovariate(_TROUBLE_PER_CALL))
                do: Any = dice.choice(("lose_answer", "lose_answer", "drop", "refuse"))
                code, status = ("ThrottlingException", 400) if do == "refuse" else ("", 0)
                times = _BOTO_TRIES if dice.random() < 0.2 else 1
                yield Sabotage(on=on, do=do, nth=call, times=times, code=code, status=status)


def event_of(uploads: Iterable[Uploaded]) -> dict[str, Any]:
    """Return the S3 event for uploads in the documented format (tests/events/)."""
    return {"Records": [_record(uploaded.message) for uploaded in uploads]}


def _record(message: UploadMessage) -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": message.bucket},
            "object": {
                "key": quote_plus(message.key, safe="/"),
                "size": message.size_bytes,
                "eTag": message.etag,
                "versionId": message.version_id,
                "sequencer": message.sequencer,
            },
        },
    }
