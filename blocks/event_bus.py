"""Puts events on the default EventBridge bus.

AWS documents the limits at docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from blocks.aws import client_of
from blocks.aws_errors import explain_aws_error
from flows.refinery.errors import SluiceError

MAX_ENTRIES = 10
MAX_CALL_BYTES = 256 * 1024  # the total of all entries in one call; EventBridge rejects a single event that is larger
_PUTTING = "announcing outcomes on EventBridge"


@dataclass(frozen=True, slots=True)
class Event:
    """One EventBridge event; `detail` is the text of a JSON object."""

    source: str
    detail_type: str
    detail: str

    @property
    def size_bytes(self) -> int:
        """Return the size of the event as EventBridge counts it."""
        return sum(len(text.encode()) for text in (self.source, self.detail_type, self.detail))


class EventBus:
    """The account's event bus named "default", which AWS services send to as well."""

    @cached_property
    def _events(self) -> Any:
        return client_of("events")

    def put(self, events: Sequence[Event]) -> list[SluiceError | None]:
        """Put events on the bus. For each event, return None if EventBridge accepted it, or else the error. AWS errors
        are returned, not raised."""
        return [answer for batch in _batches(events) for answer in self._put_batch(batch)]

    def _put_batch(self, batch: Sequence[Event]) -> list[SluiceError | None]:
        entries = [
            {"Source": event.source, "DetailType": event.detail_type, "Detail": event.detail, "EventBusName": "default"}
            for event in batch
        ]
        try:
            answers = self._events.put_events(Entries=entries)["Entries"]
        except (BotoCoreError, ClientError) as error:
            return [explain_aws_error(error, _PUTTING)] * len(batch)
        return [_refusal_of(answer) for answer in answers]


def _refusal_of(answer: dict[str, Any]) -> SluiceError | None:
    """Return the error with which EventBridge rejected one entry of a call, or None if it accepted this entry. Entries
    of the same call can have different results."""
    code = answer.get("ErrorCode")
    if not code:
        return None
    message = answer.get("ErrorMessage", "")
    return explain_aws_error(ClientError({"Error": {"Code": code, "Message": message}}, "PutEvents"), _PUTTING)


def _batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Split events, in order, into batches that each fit into one call."""
    batch: list[Event] = []
    size_bytes = 0
    for event in events:
        if batch and (len(batch) == MAX_ENTRIES or size_bytes + event.size_bytes > MAX_CALL_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(event)
        size_bytes += event.size_bytes
    if batch:
        yield batch
