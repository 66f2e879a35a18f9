"""The index of a dataset's pages: newest first, bounded, complete, without markup from a user."""

from __future__ import annotations

import re

import pytest

from flows.pipeline import data_docs_index
from flows.pipeline.data_docs_index import Entry, Update, archive_name, read, with_entry
from tests.unit.flows.pipeline.receipts import receipt_of, upload

ENTRIES_PER_PAGE = 5


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages full after a few uploads."""
    monkeypatch.setattr(data_docs_index, "ENTRIES_PER_PAGE", ENTRIES_PER_PAGE)


def an_entry(number: int, key: str = "incoming/orders/monday.csv") -> Entry:
    """Return the n-th upload of a dataset."""
    return Entry.of(receipt_of(upload(number, key=key)), f"docs/orders/page-{number}.html")


def after(count: int) -> tuple[Update, dict[str, str]]:
    """Return the index after that many uploads, and its archive pages."""
    stored, archive = None, {}
    for number in range(1, count + 1):
        update = with_entry(stored, "orders", an_entry(number))
        stored = update.index
        if update.archive:
            archive[update.archive[0]] = update.archive[1]
    return update, archive


def pages_on(page: str) -> list[str]:
    """Return the pages that an index or archive page links to, in their order."""
    return re.findall(r'<a href="(page-[0-9]+\.html)">', page)


def test_the_newest_upload_stands_first() -> None:
    update, _ = after(3)
    assert pages_on(update.index) == ["page-3.html", "page-2.html", "page-1.html"]


@pytest.mark.usefixtures("small_pages")
def test_the_index_stays_bounded_and_every_upload_is_still_listed_once() -> None:
    count = 5 * ENTRIES_PER_PAGE + 3
    update, archive = after(count)
    listed = [*pages_on(update.index), *(name for page in archive.values() for name in pages_on(page))]
    assert sorted(listed) == sorted(f"page-{number}.html" for number in range(1, count + 1))
    assert len(pages_on(update.index)) <= 2 * ENTRIES_PER_PAGE
    assert {len(pages_on(page)) for page in archive.values()} == {ENTRIES_PER_PAGE}


@pytest.mark.usefixtures("small_pages")
def test_from_the_index_every_archive_page_can_be_reached() -> None:
    update, archive = after(4 * ENTRIES_PER_PAGE)
    page, reached = update.index, []
    while found := re.search(r'<a href="(archive-[0-9]+\.html)">older</a>', page):
        reached.append(found.group(1))
        page = archive[found.group(1)]
    assert sorted(reached) == sorted(archive)


@pytest.mark.usefixtures("small_pages")
def test_workers_that_move_entries_at_the_same_time_write_the_same_archive_page() -> None:
    stored = after(2 * ENTRIES_PER_PAGE)[0].index
    one, other = (with_entry(stored, "orders", an_entry(number)) for number in (8001, 8002))
    assert one.archive == other.archive
    assert one.archive is not None
    assert one.archive[0] == archive_name(1)


def test_a_full_index_is_some_hundred_kilobytes() -> None:
    full = data_docs_index.Index(
        dataset="orders", entries=tuple(an_entry(number) for number in range(2 * data_docs_index.ENTRIES_PER_PAGE))
    )
    assert len(data_docs_index._index_page(full)) < 300_000


def test_the_same_page_is_listed_once_however_often_it_is_told() -> None:
    stored = with_entry(None, "orders", an_entry(1)).index
    stored = with_entry(stored, "orders", an_entry(2)).index
    assert pages_on(with_entry(stored, "orders", an_entry(1)).index) == ["page-1.html", "page-2.html"]


def test_an_index_that_cannot_be_read_is_begun_anew() -> None:
    assert pages_on(with_entry("<html>edited by hand</html>", "orders", an_entry(1)).index) == ["page-1.html"]
    broken = with_entry(None, "orders", an_entry(1)).index.replace('"dataset"', '"datum"')
    assert pages_on(with_entry(broken, "orders", an_entry(2)).index) == ["page-2.html"]


def test_names_of_files_become_no_markup_and_come_back_as_they_were() -> None:
    key = 'incoming/orders/</script><b>&"\u2028.csv'
    page = with_entry(None, "orders", an_entry(1, key)).index
    assert page.count("</script>") == 1
    assert "<b>" not in page
    assert read(page, "orders").entries[0].key == key
