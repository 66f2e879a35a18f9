"""This release can read what earlier releases wrote to S3 and to the queue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.pipeline.attempts import Attempt
from flows.pipeline.batch_notes import BatchNote
from flows.pipeline.protocol import IndexEntry
from flows.pipeline.receipt import Receipt, Status
from flows.refinery.contract.loading import load_contract
from lambda_trigger.message import UploadMessage
from tests.compatibility.write import FOLDER

RELEASES = sorted(path for path in FOLDER.iterdir() if path.is_dir() and path.name[0].isdigit())


def test_the_files_of_the_first_release_are_kept() -> None:
    assert [path.name for path in RELEASES][:1] == ["0.3.0"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
@pytest.mark.parametrize("status", list(Status))
def test_receipts_and_messages_are_read_and_name_the_same_run(release: Path, status: Status) -> None:
    receipt = Receipt.from_json((release / f"receipt-{status}.json").read_bytes())
    message = UploadMessage.from_json((release / f"message-{status}.json").read_text())
    assert receipt.status is status
    assert receipt.rows.balanced
    assert receipt.run_id == message.run_id


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_the_index_is_read_and_its_run_is_current(release: Path) -> None:
    entry = IndexEntry.from_json((release / "index.json").read_bytes())
    receipt = Receipt.from_json((release / "receipt-published.json").read_bytes())
    assert entry.current is not None
    assert (entry.current.run_id, entry.key) == (receipt.run_id, receipt.source.key)


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_attempts_and_batch_notes_are_read_and_name_the_same_run(release: Path) -> None:
    run_id = json.loads((release / "run-ids.json").read_text())["rejected"]
    assert Attempt.from_json((release / "attempt.json").read_bytes()).run_id == run_id
    (noted,) = BatchNote.from_json((release / "batch-note.json").read_bytes()).uploads
    assert noted.run_id == run_id


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_contracts_are_read(release: Path) -> None:
    assert load_contract(release / "orders").dataset == "orders"
