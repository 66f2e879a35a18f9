"""The index of a dataset's Data Docs pages is complete and bounded, lists the newest page first, and escapes names."""

from __future__ import annotations

import re

import pytest

from flows.pipeline import data_docs
from flows.pipeline.data_docs import Entry, read_index, with_entries
from tests.unit.flows.pipeline.receipts import receipt_of, upload

ENTRIES_PER_PAGE = 5


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the size of index pages, so that a few uploads fill them."""
    monkeypatch.setattr(data_docs, "ENTRIES_PER_PAGE", ENTRIES_PER_PAGE)


def an_entry(number: int, key: str = "incoming/orders/monday.csv") -> Entry:
    """Return the index entry for the upload with this number."""
    return Entry.of(receipt_of(upload(number, key=key)), f"page-{number}.html")


def after(count: int) -> tuple[str, dict[str, str]]:
    """Return the index after `count` uploads, and its archive pages as name → content."""
    index, archive = with_entries(None, "orders", [an_entry(1)])
    for number in range(2, count + 1):
        index, moved = with_entries(index, "orders", [an_entry(number)])
        archive |= moved
    return index, archive


def pages_on(page: str) -> list[str]:
    """Return the names of the Data Docs pages to which an index or archive page links, in order."""
    return re.findall(r'<a href="(page-[0-9]+\.html)">', page)


def test_the_newest_upload_is_listed_first() -> None:
    index, _ = after(3)
    assert pages_on(index) == ["page-3.html", "page-2.html", "page-1.html"]


@pytest.mark.usefixtures("small_pages")
def test_the_index_stays_bounded_and_every_upload_is_still_listed_once() -> None:
    count = 5 * ENTRIES_PER_PAGE + 3
    index, archive = after(count)
    listed = [*pages_on(index), *(name for page in archive.values() for name in pages_on(page))]
    assert sorted(listed) == sorted(f"page-{number}.html" for number in range(1, count + 1))
    assert len(pages_on(index)) <= 2 * ENTRIES_PER_PAGE
    assert {len(pages_on(page)) for page in archive.values()} == {ENTRIES_PER_PAGE}


@pytest.mark.usefixtures("small_pages")
def test_every_archive_page_can_be_reached_from_the_index() -> None:
    index, archive = after(4 * ENTRIES_PER_PAGE)
    page, reached = index, []
    while found := re.search(r'<a href="(archive-[0-9]+\.html)">older</a>', page):
        reached.append(found.group(1))
        page = archive[found.group(1)]
    assert sorted(reached) == sorted(archive)


@pytest.mark.usefixtures("small_pages")
def test_workers_that_move_entries_at_the_same_time_write_the_same_archive_page() -> None:
    stored, _ = after(2 * ENTRIES_PER_PAGE)
    one, other = (with_entries(stored, "orders", [an_entry(number)])[1] for number in (8001, 8002))
    assert one == other
    assert list(one) == ["archive-000001.html"]


def test_a_full_index_is_smaller_than_300_kilobytes() -> None:
    entries = [an_entry(number) for number in range(2 * data_docs.ENTRIES_PER_PAGE)]
    index, archive = with_entries(None, "orders", entries)
    assert archive == {}
    assert len(index) < 300_000


def test_the_same_page_is_listed_once_however_often_it_is_added() -> None:
    stored = with_entries(None, "orders", [an_entry(1)])[0]
    stored = with_entries(stored, "orders", [an_entry(2)])[0]
    assert pages_on(with_entries(stored, "orders", [an_entry(1)])[0]) == ["page-1.html", "page-2.html"]


def test_an_unreadable_index_is_replaced_by_a_new_one() -> None:
    assert pages_on(with_entries("<html>edited by hand</html>", "orders", [an_entry(1)])[0]) == ["page-1.html"]
    broken = with_entries(None, "orders", [an_entry(1)])[0].replace('"dataset"', '"datum"')
    assert pages_on(with_entries(broken, "orders", [an_entry(2)])[0]) == ["page-2.html"]


def test_file_names_are_escaped_and_read_back_unchanged() -> None:
    key = 'incoming/orders/</script><b>&"\u2028.csv'
    page = with_entries(None, "orders", [an_entry(1, key)])[0]
    assert page.count("</script>") == 1
    assert "<b>" not in page
    assert read_index(page, "orders").entries[0].key == key


def test_the_uploads_of_a_batch_are_added_together() -> None:
    stored, _ = after(2)
    index, archive = with_entries(stored, "orders", [an_entry(3), an_entry(4), an_entry(3)])
    assert pages_on(index) == ["page-3.html", "page-4.html", "page-2.html", "page-1.html"]
    assert archive == {}
