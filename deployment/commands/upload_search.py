"""Finds the uploads that `sluice status` shows, by run ID, dataset or file name, and by time."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from itertools import chain, islice

from blocks.at_once import at_once
from blocks.object_store import ObjectStore
from flows.pipeline.commit import indexed_datasets
from flows.pipeline.lost_uploads import upload_of_version
from flows.pipeline.protocol import INDEX, IndexEntry, IndexUnreadable
from flows.pipeline.run_ids import RunUnknown, find_run
from flows.refinery.errors import TerminalError
from lambda_trigger.message import UploadMessage

MOST_READ = 1_000  # the maximum number of receipts, index entries or object versions that one search reads
_AGE = re.compile(r"(\d+)\s*([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class TimeUnreadable(TerminalError):
    """The value of --since is neither an age such as 90m, 2h or 3d nor an ISO 8601 date or time."""


@dataclass(frozen=True)
class Wanted:
    """The criteria that select the uploads to show."""

    text: str = ""  # a run ID, a dataset, or the beginning of a file's name or object key; "" for all
    failed: bool = False  # whether to show only uploads that were rejected or failed
    since: datetime | None = None  # show only uploads whose state was written at or after this time

    def is_recent(self, written: datetime) -> bool:
        return self.since is None or written >= self.since


ALL = Wanted()


@dataclass(frozen=True)
class FoundRuns:
    """The runs that a search found."""

    runs: dict[str, datetime]  # when each was uploaded or finished, by run ID, newest first
    uploads: dict[str, UploadMessage] = field(default_factory=dict)  # for a search by name: the uploads, by run ID
    folder: str | None = None  # for a search by dataset: the folder of its uploads in the landing bucket

    def may_have(self, run_id: str) -> bool:
        return self.folder is not None or run_id in self.runs

    def has(self, upload: UploadMessage) -> bool:
        return upload.run_id in self.runs or (self.folder is not None and upload.key.startswith(self.folder))


def moment_of(text: str, now: datetime) -> datetime:
    """Return the time that an age such as 2h, counted back from `now`, or an ISO 8601 date or time refers to. Without a
    UTC offset, times are in UTC. Raise TimeUnreadable if `text` is neither."""
    try:
        if age := _AGE.fullmatch(text.strip()):
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        advice = "give an age such as 90m, 2h or 3d, or a date such as 2026-11-29"
        raise TimeUnreadable(f"--since {text!r}: {advice}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def find_runs(store: ObjectStore, wanted: Wanted, incoming_prefix: str, limit: int) -> FoundRuns:
    """Return the runs that match `wanted.text`, which is a run ID, a dataset, or the beginning of a file's name or
    object key. A search by name or key also finds uploads that have no outcome yet.

    For a dataset, the newest `limit` index entries are read, or MOST_READ of them if only failed uploads are wanted.
    For a name or key, at most MOST_READ object versions are read.
    """
    try:
        return FoundRuns({find_run(store, wanted.text): datetime.max.replace(tzinfo=UTC)})
    except RunUnknown:
        pass
    known = indexed_datasets(store)
    if wanted.text in known:
        folder = f"{incoming_prefix}{wanted.text}/"
        return FoundRuns(_runs_of_dataset(store, wanted, MOST_READ if wanted.failed else limit), folder=folder)
    folders = ["", *(f"{name}/" for name in known)]
    text = wanted.text.removeprefix(incoming_prefix)
    pages = (store.versions(store.landing_bucket, f"{incoming_prefix}{folder}{text}") for folder in folders)
    versions = (version for page in chain.from_iterable(pages) for version in page if version.version_id)
    found = sorted(islice(versions, MOST_READ), key=lambda version: version.last_modified, reverse=True)
    uploads = {version: upload_of_version(store.landing_bucket, version) for version in found}
    return FoundRuns(
        {upload.run_id: version.last_modified for version, upload in uploads.items()},
        {upload.run_id: upload for upload in uploads.values()},
    )


def _runs_of_dataset(store: ObjectStore, wanted: Wanted, limit: int) -> dict[str, datetime]:
    listed = store.list_keys(f"{INDEX}{wanted.text}/")
    newest = nlargest(limit, (one for one in listed if wanted.is_recent(one[1])), key=lambda one: one[1])
    runs = at_once(lambda one: list(_latest_run(store, one[0], wanted)), newest)
    return {run: written for (_, written), of_entry in zip(newest, runs, strict=True) for run in of_entry}


def _latest_run(store: ObjectStore, key: str, wanted: Wanted) -> Iterator[str]:
    stored = store.get(key)
    try:
        latest = IndexEntry.from_json(stored.body).latest if stored else None
    except IndexUnreadable:  # `sluice read` reports it
        return
    if latest and not (wanted.failed and latest.status == "published"):
        yield latest.run_id
