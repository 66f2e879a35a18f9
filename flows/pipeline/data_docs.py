"""Publishes Data Docs: a page for each upload, and an index page for each dataset. Failures are logged, not raised.

The index page contains its entries as JSON, so one object, replaced by compare-and-swap, is both the page and its data.
It lists at most 2 x ENTRIES_PER_PAGE uploads. If there are more, the oldest ENTRIES_PER_PAGE move to an archive page,
which never changes afterwards and links to the archive page before it. So adding the uploads of a batch usually costs
one small read and one small write, no matter how many uploads are already listed. Monthly pages would grow with the
dataset's traffic, and listing the prefix would cost a request per thousand pages.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blocks.aws_errors import AwsUnavailable
from blocks.contention import attempts
from blocks.object_store import ObjectStore
from flows.pipeline.data_docs_page import page_of
from flows.pipeline.receipt import Receipt

LOG = logging.getLogger("sluice")
ENTRIES_PER_PAGE = 200
_HTML = "text/html; charset=utf-8"
_MAX_REASON = 200  # characters
_ENTRIES = re.compile(r'<script type="application/json" id="entries">(.*?)</script>', re.DOTALL)


def page_key(receipt: Receipt) -> str:
    """Return the object key of a receipt's Data Docs page. The key contains the run ID, the attempt and a digest of the
    outcome, so that a different result never overwrites the page."""
    name = f"{receipt.run_id}-{receipt.attempt}-{receipt.outcome_digest[:16]}.html"
    return f"docs/{receipt.contract.dataset}/{name}"


def publish_page(store: ObjectStore, receipt: Receipt) -> str | None:
    """Write the Data Docs page of a receipt that is about to be committed. Return its key, or None if that failed."""
    key = page_key(receipt)
    written = _best_effort(lambda: store.put(key, page_of(receipt), content_type=_HTML), "page", receipt)
    return key if written else None


def list_pages(store: ObjectStore, receipts: Iterable[Receipt]) -> None:
    """Add the Data Docs pages of committed receipts to the index pages of their datasets, in one update per dataset.
    If a worker dies before this, an index page lacks the upload, but the receipt still names the page."""
    by_dataset: dict[str, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        if receipt.docs_page:
            by_dataset[receipt.contract.dataset].append(receipt)
    for dataset, listed in by_dataset.items():
        _best_effort(partial(_list_in, store, dataset, listed), "index", listed[0])


def _list_in(store: ObjectStore, dataset: str, receipts: Sequence[Receipt]) -> None:
    entries = [Entry.of(receipt, (receipt.docs_page or "").rpartition("/")[2]) for receipt in receipts]

    def change(stored: str | None) -> str:
        index, archive = with_entries(stored, dataset, entries)
        for archive_page, text in archive.items():
            store.put(f"docs/{dataset}/{archive_page}", text, content_type=_HTML)
        return index

    change_text(store, f"docs/{dataset}/index.html", change)


def change_text(store: ObjectStore, key: str, change: Callable[[str | None], str]) -> None:
    """Replace the text of a page with the result of `change`, which gets the current text, or None if there is no page
    yet. If another worker changes the page first, call `change` again. Raise AwsUnavailable if that happens on every
    try."""
    for _ in attempts():
        found = store.get(key)
        text = change(found.body.decode("utf-8", "replace") if found else None)
        if store.put_if_unchanged(key, text, found, content_type=_HTML):
            return
    raise AwsUnavailable(f"{key} kept changing")


def _best_effort(do: Callable[[], Any], what: str, receipt: Receipt) -> bool:
    try:
        do()
    except Exception as error:  # noqa: BLE001 (a documentation page must never hold data back)
        LOG.warning("run %s: the Data Docs %s could not be written: %s", receipt.run_id, what, type(error).__name__)
        return False
    return True


# --- the index --------------------------------------------------------------------------------------------------------


class Entry(BaseModel):
    """One upload on an index page; `page` is the file name of the upload's own page, which is in the same folder."""

    model_config = ConfigDict(frozen=True)

    page: str
    key: str
    when: str = Field(description="ISO 8601, UTC")
    status: str
    rows_in: int
    published: int
    quarantined: int
    dropped: int
    reason: str = ""

    @classmethod
    def of(cls, receipt: Receipt, page: str) -> Entry:
        return cls(
            page=page,
            key=receipt.source.key,
            when=receipt.created_at,
            status=str(receipt.status),
            rows_in=receipt.rows.rows_in,
            published=receipt.rows.published,
            quarantined=receipt.rows.quarantined_total,
            dropped=receipt.rows.dropped_total,
            reason=receipt.reason[:_MAX_REASON],
        )


class Index(BaseModel):
    """The data of a dataset's index page: the entries, newest first, and the number of archive pages."""

    dataset: str
    archived: int = 0
    entries: tuple[Entry, ...] = ()


def read_index(stored: str | None, dataset: str) -> Index:
    """Return the data of an index page, or an empty index if there is no page or it cannot be read."""
    found = _ENTRIES.search(stored) if stored else None
    if found:
        try:
            return Index.model_validate_json(found.group(1))
        except ValidationError:
            pass
    return Index(dataset=dataset)


def with_entries(stored: str | None, dataset: str, new: Sequence[Entry]) -> tuple[str, dict[str, str]]:
    """Add uploads to a dataset's index page. Return the new index page, and a mapping with the name and the text of the
    archive page that has to be written before it, or an empty mapping if there is none.

    Existing entries for the same pages are replaced. Two workers that archive entries at the same time start from the
    same index, so they write the same archive page; one of them then loses the compare-and-swap and starts again.

    Args:
        stored: the stored index page. If it is None or cannot be read, a new index is started.
        new: the uploads to add, oldest first; at most ENTRIES_PER_PAGE.
    """
    index = read_index(stored, dataset)
    archived, title = index.archived, f"Data Docs of {dataset}"
    latest = {entry.page: entry for entry in reversed(new)}
    entries = (*latest.values(), *(known for known in index.entries if known.page not in latest))
    archive = {}
    if len(entries) > 2 * ENTRIES_PER_PAGE:
        entries, moved = entries[:-ENTRIES_PER_PAGE], entries[-ENTRIES_PER_PAGE:]
        archive_page = _template().render(
            title=f"{title}, archive {archived + 1}", entries=moved, older=_archive_name(archived)
        )
        archived += 1
        archive = {_archive_name(archived): archive_page}
    index = Index(dataset=dataset, archived=archived, entries=entries)
    return _template().render(title=title, entries=entries, older=_archive_name(archived), index=index), archive


def _archive_name(number: int) -> str:
    """Return the file name of archive page `number`, counting from 1, or "" for 0."""
    return f"archive-{number:06d}.html" if number else ""


@functools.cache
def _template() -> Any:
    from jinja2 import Template  # a dependency of GX, whose pages need it too

    return Template((Path(__file__).parent / "data_docs_index.html").read_text(encoding="utf-8"), autoescape=True)
