"""Publishing Data Docs: a page for each upload and the index of its dataset. They never hold data back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from flows.pipeline.data_docs_index import Entry, with_entry
from flows.pipeline.data_docs_page import page_of
from flows.pipeline.receipt import Receipt

LOG = logging.getLogger("sluice")


class PageStore(Protocol):
    """Where pages lie; blocks.object_store.ObjectStore is one."""

    def put_text(self, key: str, text: str, *, content_type: str) -> None:
        """Write an object, whatever lay there."""

    def change_text(self, key: str, change: Callable[[str | None], str], *, content_type: str) -> None:
        """Replace an object's text by what `change` makes of it, by compare-and-swap."""


def page_key(receipt: Receipt) -> str:
    """Where the page of a receipt lies: named by run, attempt and outcome, so that no other result overwrites it."""
    name = f"{receipt.run_id}-{receipt.attempt}-{receipt.outcome_digest[:16]}.html"
    return f"docs/{receipt.contract.dataset}/{name}"


def publish_page(store: PageStore, receipt: Receipt) -> str | None:
    """Render and write the page of a receipt that is about to be committed.

    Returns:
        the page's key for the receipt to name; None when the page could not be made, which the log tells.
    """
    key = page_key(receipt)
    written = _at_best(lambda: store.put_text(key, page_of(receipt), content_type=_HTML), "page", receipt)
    return key if written else None


def list_page(store: PageStore, receipt: Receipt) -> None:
    """Put the page of a committed receipt into its dataset's index.

    Left out when a worker dies between the two: the receipt names the page all the same, and only a list for people
    lacks a line.
    """
    key = receipt.docs_page
    if key is None:
        return
    folder = key.rsplit("/", 1)[0]
    entry = Entry.of(receipt, key)

    def change(stored: str | None) -> str:
        update = with_entry(stored, receipt.contract.dataset, entry)
        if update.archive:
            name, text = update.archive
            store.put_text(f"{folder}/{name}", text, content_type=_HTML)
        return update.index

    _at_best(lambda: store.change_text(f"{folder}/index.html", change, content_type=_HTML), "index", receipt)


_HTML = "text/html; charset=utf-8"


def _at_best(do: Callable[[], Any], what: str, receipt: Receipt) -> bool:
    try:
        do()
    except Exception as error:  # noqa: BLE001 (documentation never holds data back)
        LOG.warning("run %s: the Data Docs %s could not be written: %s", receipt.run_id, what, type(error).__name__)
        return False
    return True
