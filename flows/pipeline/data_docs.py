"""Publish Data Docs: a page for each upload and the index of its dataset. They never hold data back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from blocks.aws_errors import AwsUnavailable
from blocks.object_store import ObjectStore
from flows.pipeline.data_docs_index import Entry, with_entry
from flows.pipeline.data_docs_page import page_of
from flows.pipeline.receipt import Receipt

LOG = logging.getLogger("sluice")
_HTML = "text/html; charset=utf-8"
_ATTEMPTS = 8


def page_key(receipt: Receipt) -> str:
    """Return the key of a receipt's page: named by run, attempt and outcome, so that no other result overwrites it."""
    name = f"{receipt.run_id}-{receipt.attempt}-{receipt.outcome_digest[:16]}.html"
    return f"docs/{receipt.contract.dataset}/{name}"


def publish_page(store: ObjectStore, receipt: Receipt) -> str | None:
    """Render and write the page of a receipt that is about to be committed.

    Returns:
        the page's key for the receipt to name; None when the page could not be made, which is logged.
    """
    key = page_key(receipt)
    written = _best_effort(lambda: store.put(key, page_of(receipt), content_type=_HTML), "page", receipt)
    return key if written else None


def list_page(store: ObjectStore, receipt: Receipt) -> None:
    """Put the page of a committed receipt into its dataset's index.

    When a worker dies before this, the receipt still names the page, and only a list for people lacks a line.
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
            store.put(f"{folder}/{name}", text, content_type=_HTML)
        return update.index

    _best_effort(lambda: change_text(store, f"{folder}/index.html", change), "index", receipt)


def change_text(store: ObjectStore, key: str, change: Callable[[str | None], str]) -> None:
    """Replace a page by what `change` makes of it; begin again when another worker was faster.

    Raises:
        AwsUnavailable: others were faster every time.
    """
    for _ in range(_ATTEMPTS):
        found = store.get(key)
        text = change(found.body.decode("utf-8", "replace") if found else None)
        if store.put_if_unchanged(key, text, found, content_type=_HTML):
            return
    raise AwsUnavailable(f"{key} kept changing")


def _best_effort(do: Callable[[], Any], what: str, receipt: Receipt) -> bool:
    try:
        do()
    except Exception as error:  # noqa: BLE001 (documentation never holds data back)
        LOG.warning("run %s: the Data Docs %s could not be written: %s", receipt.run_id, what, type(error).__name__)
        return False
    return True
