"""The index of a dataset's Data Docs pages: one HTML page that lists the newest, and a chain of older ones. Pure.

The index page contains its entries as JSON, so it is a single object, replaced by compare-and-swap, and nothing can
contradict it. It lists at most 2 x ENTRIES_PER_PAGE uploads. When there are more,
the older half moves to an archive page that is written once; each archive page links to the one before it. So an upload
costs one small read and one small write, however many uploads came before. Monthly pages would grow with the
dataset's traffic, and listing the prefix costs a request per thousand pages.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.pipeline.receipt import Receipt

ENTRIES_PER_PAGE = 200
_MAX_REASON = 200  # characters
_ISLAND = re.compile(r'<script type="application/json" id="entries">(.*?)</script>', re.DOTALL)


class Entry(BaseModel):
    """One upload in the index."""

    model_config = ConfigDict(frozen=True)

    page: str = Field(description="the page's file name, in the index's folder")
    key: str = Field(description="the uploaded object's key")
    when: str = Field(description="ISO 8601, UTC")
    status: str
    rows_in: int
    published: int
    quarantined: int
    dropped: int
    reason: str = ""

    @classmethod
    def of(cls, receipt: Receipt, page_key: str) -> Entry:
        """Return the index entry of a receipt."""
        return cls(
            page=page_key.rsplit("/", 1)[-1],
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
    """The content of a dataset's index page: the newest entries first, and the number of archive pages."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    archived: int = 0
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Update:
    """The pages to write after an upload.

    Attributes:
        index: the new index page.
        archive: the archive page's file name and content; write it before the index. None when there is none.
    """

    index: str
    archive: tuple[str, str] | None = None


def with_entry(stored: str | None, dataset: str, entry: Entry) -> Update:
    """The pages of a dataset's index once an upload is taken into account; an entry of the same page is replaced.

    Two workers that move entries at the same time start from the same index, so they write the same archive page;
    one of them then loses the compare-and-swap and begins again.

    Args:
        stored: the index page as it is stored; None, or a page that cannot be read, begins a new one.
    """
    index = read(stored, dataset)
    others = tuple(known for known in index.entries if known.page != entry.page)
    index = Index(dataset=dataset, archived=index.archived, entries=(entry, *others))
    archive = None
    if len(index.entries) > 2 * ENTRIES_PER_PAGE:
        kept, moved = index.entries[:-ENTRIES_PER_PAGE], index.entries[-ENTRIES_PER_PAGE:]
        index = Index(dataset=dataset, archived=index.archived + 1, entries=kept)
        archive = (archive_name(index.archived), _archive_page(dataset, index.archived, moved))
    return Update(_index_page(index), archive)


def read(stored: str | None, dataset: str) -> Index:
    """The index that a page carries; an empty one where there is no page, or none that can be read."""
    found = _ISLAND.search(stored) if stored else None
    if found:
        try:
            return Index.model_validate_json(found.group(1))
        except ValidationError:
            pass
    return Index(dataset=dataset)


def archive_name(number: int) -> str:
    """The file name of the n-th archive page, from 1."""
    return f"archive-{number:06d}.html"


# --- HTML -------------------------------------------------------------------------------------------------------------

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid #ddd;"
    "vertical-align:top}td.n{text-align:right}.published{color:#146c2e}.rejected{color:#a4262c}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}th,td{border-color:#444}a{color:#8ab4f8}"
    ".published{color:#7bd88f}.rejected{color:#ff8a80}}"
)


def _index_page(index: Index) -> str:
    # In a script element only "<" could end it; JSON can write it otherwise.
    island = json.dumps(index.model_dump(mode="json"), ensure_ascii=True).replace("<", "\\u003c")
    body = [
        *_list(f"Data Docs of {index.dataset}", index.entries, older=index.archived),
        f'<script type="application/json" id="entries">{island}</script>',
    ]
    return _page(f"Data Docs of {index.dataset}", body)


def _archive_page(dataset: str, number: int, entries: Sequence[Entry]) -> str:
    title = f"Data Docs of {dataset}, archive {number}"
    return _page(title, [*_list(title, entries, older=number - 1), '<p><a href="index.html">newest</a></p>'])


def _list(title: str, entries: Sequence[Entry], older: int) -> Iterator[str]:
    yield f"<h1>{html.escape(title)}</h1>"
    yield "<table><thead><tr><th>when (UTC)</th><th>file</th><th>status</th><th>in</th><th>published</th>"
    yield "<th>quarantined</th><th>dropped</th><th>why</th></tr></thead><tbody>"
    yield from map(_line, entries)
    yield "</tbody></table>"
    if older:
        yield f'<p><a href="{archive_name(older)}">older</a></p>'


def _line(entry: Entry) -> str:
    counts = (entry.rows_in, entry.published, entry.quarantined, entry.dropped)
    cells = "".join(f'<td class="n">{count:,}</td>' for count in counts)
    when = html.escape(entry.when[:19].replace("T", " "))
    link = f'<a href="{html.escape(entry.page)}">{html.escape(entry.key)}</a>'
    status = html.escape(entry.status)
    reason = html.escape(entry.reason)
    return f'<tr><td>{when}</td><td>{link}</td><td class="{status}">{status}</td>{cells}<td>{reason}</td></tr>'


def _page(title: str, body: Sequence[str]) -> str:
    head = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
    )
    return "\n".join([head, *body, "</body></html>", ""])
