"""Repair: after correcting the quarantine of a dirty upload, the published rows are those of a clean upload."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest

import flows.pipeline.commit
from blocks.object_store import ObjectStore
from flows.pipeline.commit import read_receipt
from flows.pipeline.errors import RepairRejected
from flows.pipeline.protocol import IndexEntry, ReceiptConflict, index_key
from flows.pipeline.receipt import Receipt, Status
from flows.refinery.contract.loading import Contracts, overridden
from flows.refinery.contract.model import BadRows
from flows.refinery.repair.corrections import (
    Corrections,
    CorrectionsUnusable,
    export_quarantine,
    read_corrections,
)
from flows.repair import NothingToRepair, repair
from lambda_trigger.message import UploadMessage
from tests.chain.files import HEADER, good_orders, order, orders
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account

KEY = "incoming/orders/monday.csv"
CLEAN = [order(number) for number in range(1, 13)]
DIRTY = [*CLEAN]
DIRTY[3] = order(4, quantity=0)
DIRTY[7] = order(8, unit_price="cheap")
TORN = [*CLEAN]
TORN[5] = order(6) + ",too,many"


def process(account: Account, body: bytes, key: str = KEY) -> Receipt:
    return account.process(account.upload(key, body))


def output_of(receipt: Receipt, kind: str, folder: Path) -> Path:
    """Return a local copy of an output, with the same name."""
    (output,) = [output for output in receipt.outputs if output.kind == kind]
    path = folder / output.key.rsplit("/", 1)[-1]
    boto3.client("s3").download_file(PUBLISHED, output.key, str(path))
    return path


def corrected(receipt: Receipt, folder: Path, change: Callable[[dict[str, str]], None]) -> Corrections:
    """Return the quarantine as CSV, manually corrected."""
    path = folder / "corrected.csv"
    export_quarantine(output_of(receipt, "quarantine", folder), path)
    rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
    for row in rows:
        change(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return read_corrections(path)


def as_it_should_be(row: dict[str, str]) -> None:
    """Return the corrections of the bad orders."""
    clean = dict(zip(HEADER.split(","), CLEAN[int(row["_row_number"]) - 1].split(","), strict=True))
    row.update(clean)


@pytest.mark.parametrize("lines", [DIRTY, TORN], ids=["wrong values", "a row that could not be decoded"])
def test_dirty_and_repaired_is_the_same_as_clean(account: Account, tmp_path: Path, lines: list[str]) -> None:
    clean = process(account, orders(*CLEAN), "incoming/orders/clean.csv")
    dirty = process(account, orders(*lines))
    assert dirty.rows.quarantined_total > 0
    repaired = repair(account.parts, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    assert (repaired.status, repaired.attempt, repaired.rows) == (Status.PUBLISHED, 1, clean.rows)
    published, wanted = (pd.read_parquet(output_of(receipt, "data", tmp_path)) for receipt in (repaired, clean))
    pd.testing.assert_frame_equal(published, wanted)


def test_the_new_receipt_replaces_the_old_one_and_its_data(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = repair(account.parts, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    assert read_receipt(account.parts.store, dirty.run_id) == repaired
    data = [output.key for output in repaired.outputs if output.kind == "data"]
    assert account.keys("data/") == data
    body = boto3.client("s3").get_object(Bucket=PUBLISHED, Key=index_key("orders", LANDING, KEY))["Body"].read()
    entry = IndexEntry.model_validate_json(body)
    assert entry.current is not None
    assert (entry.current.attempt, list(entry.current.data_keys)) == (1, data)


def test_rows_that_are_still_wrong_stay_in_quarantine_and_a_second_repair_builds_on_the_first(
    account: Account, tmp_path: Path
) -> None:
    dirty = process(account, orders(*DIRTY))

    def only_the_first(row: dict[str, str]) -> None:
        if row["_row_number"] == "4":
            as_it_should_be(row)

    once = repair(account.parts, dirty.run_id, corrected(dirty, tmp_path, only_the_first))
    assert (once.rows.published, once.rows.quarantined_total) == (11, 1)
    twice = repair(account.parts, dirty.run_id, corrected(once, tmp_path, as_it_should_be))
    assert (twice.attempt, twice.rows.published, twice.rows.quarantined_total) == (2, 12, 0)


def test_rows_that_are_corrected_wrongly_go_back_into_quarantine(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = repair(account.parts, dirty.run_id, corrected(dirty, tmp_path, lambda row: row.update(order_id="")))
    assert (repaired.rows.published, repaired.rows.quarantined_total) == (10, 2)


def test_a_repair_that_would_get_the_file_rejected_changes_nothing(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    before = account.keys()
    contracts = account.parts.contracts
    limits = BadRows(max_count=1, max_fraction=None, policy="quarantine")
    contracts._by_name["orders"] = contracts.named("orders").model_copy(update={"bad_rows": limits})
    with pytest.raises(RepairRejected, match="at most 1"):
        repair(account.parts, dirty.run_id, corrected(dirty, tmp_path, lambda row: row.update(order_id="")))
    assert read_receipt(account.parts.store, dirty.run_id) == dirty
    assert account.keys() == before


def test_what_has_nothing_in_quarantine_cannot_be_repaired(account: Account) -> None:
    some = Corrections(("quantity",), {1: {"quantity": "1"}})
    clean, rejected = process(account, good_orders(2)), process(account, b"", "incoming/orders/empty.csv")
    for run_id, why in ((clean.run_id, "no rows in quarantine"), (rejected.run_id, "rejected"), ("0" * 32, "receipt")):
        with pytest.raises(NothingToRepair, match=why):
            repair(account.parts, run_id, some)


def test_only_rows_in_quarantine_can_be_changed(account: Account) -> None:
    dirty = process(account, orders(*DIRTY))
    with pytest.raises(CorrectionsUnusable, match="row 1 is not in the quarantine"):
        repair(account.parts, dirty.run_id, Corrections(("quantity",), {1: {"quantity": "999"}}))
    assert read_receipt(account.parts.store, dirty.run_id) == dirty


def test_a_file_of_values_with_types_is_repaired_as_well(account: Account, tmp_path: Path) -> None:
    def records(lines: list[str]) -> bytes:
        rows = csv.DictReader(io.StringIO("\n".join([HEADER, *lines])))
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    clean = process(account, gzip.compress(records(CLEAN)), "incoming/orders/clean.jsonl.gz")
    dirty = process(account, gzip.compress(records(DIRTY)), "incoming/orders/monday.jsonl.gz")
    repaired = repair(account.parts, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    assert (repaired.attempt, repaired.rows) == (1, clean.rows)
    published, wanted = (pd.read_parquet(output_of(receipt, "data", tmp_path)) for receipt in (repaired, clean))
    pd.testing.assert_frame_equal(published, wanted)


# --- later attempts ---------------------------------------------------------------------------------------------------


def again(account: Account, receipt: Receipt) -> Receipt:
    """Force a re-run of the same object version."""
    source = receipt.source
    upload = UploadMessage(
        bucket=source.bucket,
        key=source.key,
        version_id=source.version_id,
        etag=source.etag,
        size_bytes=source.size_bytes,
        attempt=receipt.attempt + 1,
    )
    return account.process(upload)


def test_a_forced_re_run_keeps_what_repairs_corrected(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = repair(account.parts, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    before = pd.read_parquet(output_of(repaired, "data", tmp_path))
    forced = again(account, again(account, repaired))
    assert (forced.attempt, forced.rows) == (3, repaired.rows)
    pd.testing.assert_frame_equal(pd.read_parquet(output_of(forced, "data", tmp_path)), before)


def test_corrections_outlast_an_attempt_that_rejected_the_file(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = repair(account.parts, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    contracts = account.parts.contracts
    usual = contracts.named("orders")
    changes = {"expectations": [{"expect_table_row_count_to_equal": {"value": 5}}]}
    contracts._by_name["orders"] = overridden(usual, changes)
    contracts._globs = Contracts(contracts)._globs
    rejected = again(account, repaired)
    assert (rejected.status, [output.kind for output in rejected.outputs]) == (Status.REJECTED, ["corrections"])
    contracts._by_name["orders"] = usual
    contracts._globs = Contracts(contracts)._globs
    assert again(account, rejected).rows == repaired.rows


def test_a_repair_that_another_attempt_overtakes_is_refused(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty = process(account, orders(*DIRTY))
    corrections = corrected(dirty, tmp_path, as_it_should_be)
    download = ObjectStore.download

    def download_late(store: ObjectStore, bucket: str, *given: Any, **more: Any) -> None:
        download(store, bucket, *given, **more)
        if bucket == LANDING:
            monkeypatch.setattr(ObjectStore, "download", download)
            again(account, dirty)

    monkeypatch.setattr(ObjectStore, "download", download_late)
    with pytest.raises(ReceiptConflict):
        repair(account.parts, dirty.run_id, corrections)
    assert repair(account.parts, dirty.run_id, corrections).rows.published == 12


def test_a_repair_that_two_attempts_overtake_at_its_commit_is_no_success(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty = process(account, orders(*DIRTY))
    corrections = corrected(dirty, tmp_path, as_it_should_be)
    commit = flows.pipeline.commit.commit

    def commit_late(store: ObjectStore, receipt: Receipt) -> Receipt:
        monkeypatch.setattr(flows.pipeline.commit, "commit", commit)
        again(account, again(account, dirty))
        return commit(store, receipt)

    monkeypatch.setattr(flows.pipeline.commit, "commit", commit_late)
    with pytest.raises(ReceiptConflict):
        repair(account.parts, dirty.run_id, corrections)
    assert len(account.keys("data/")) == 1
    assert repair(account.parts, dirty.run_id, corrections).rows.published == 12


# --- the file with the corrections ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "no column _row_number"),
        ("_row_number,a\nfour,1\n", "line 1 has no row number"),
        ("_row_number,a\n4,1\n4,2\n", "row 4 is there twice"),
        ("_row_number,a\n4,1,5\n", "line 2 has 3 fields, and the header has 2"),
        ("_row_number,a\n4\n", "line 2 has 1 fields, and the header has 2"),
    ],
)
def test_a_file_that_says_no_rows_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(CorrectionsUnusable, match=why):
        read_corrections(tmp_path / "x.csv")


def test_a_file_that_a_spreadsheet_program_saved_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("\ufeff_row_number;a\r\n4.0;1,5\r\n")
    assert read_corrections(tmp_path / "x.csv").rows == {4: {"a": "1,5"}}


def test_corrections_are_kept_and_read_back_as_they_were(tmp_path: Path) -> None:
    corrections = Corrections(("a", "b"), {3: {"a": "x", "b": None}, 1: {"a": " 007 ", "b": '"'}})
    corrections.write(tmp_path / "kept.parquet")
    assert read_corrections(tmp_path / "kept.parquet") == corrections
