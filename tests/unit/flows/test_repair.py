"""After the quarantined rows of a file have been corrected, the published rows are those of a file without errors."""

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
from blocks.object_store import ObjectFacts, ObjectStore
from flows.pipeline.commit import read_receipt
from flows.pipeline.errors import RepairRejected
from flows.pipeline.protocol import IndexEntry, ReceiptConflict, index_key
from flows.pipeline.receipt import Receipt, Status
from flows.pipeline.stages import CorrectionsGone
from flows.refinery.contract.loading import Contracts, overridden
from flows.refinery.contract.model import BadRows
from flows.refinery.repair.changes import OtherCellsChanged, require_only_bad_cells
from flows.refinery.repair.corrections import CorrectionsUnusable
from flows.refinery.repair.quarantined_rows import export_quarantine
from flows.repair import NothingToRepair, plan_repair, repair
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
    """Download the only output of this type, and return the path of the copy, which has the same name."""
    (output,) = [output for output in receipt.outputs if output.kind == kind]
    path = folder / output.key.rsplit("/", 1)[-1]
    boto3.client("s3").download_file(PUBLISHED, output.key, str(path))
    return path


def published_again(account: Account, run_id: str, file: Path, *, allow_other_changes: bool = False) -> Receipt:
    plan = plan_repair(account.parts, run_id, file)
    if not allow_other_changes:
        require_only_bad_cells(plan.changes)
    return repair(account.parts, plan)


def corrected(receipt: Receipt, folder: Path, change: Callable[[dict[str, str]], None]) -> Path:
    """Export the quarantined rows as CSV, apply `change` to each, and return the path of the file."""
    path = folder / "corrected.csv"
    export_quarantine(output_of(receipt, "quarantine", folder), path)
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    for row in rows:
        change(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_it_should_be(row: dict[str, str]) -> None:
    """Correct a quarantined order, so that it equals the row in the file without errors."""
    clean = dict(zip(HEADER.split(","), CLEAN[int(row["_row_number"]) - 1].split(","), strict=True))
    row.update(clean)


@pytest.mark.parametrize("lines", [DIRTY, TORN], ids=["wrong values", "a row that could not be decoded"])
def test_a_repaired_file_gives_the_same_result_as_a_clean_one(
    account: Account, tmp_path: Path, lines: list[str]
) -> None:
    clean = process(account, orders(*CLEAN), "incoming/orders/clean.csv")
    dirty = process(account, orders(*lines))
    assert dirty.rows.quarantined_total > 0
    repaired = published_again(account, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    assert (repaired.status, repaired.attempt, repaired.rows) == (Status.PUBLISHED, 1, clean.rows)
    published, wanted = (pd.read_parquet(output_of(receipt, "data", tmp_path)) for receipt in (repaired, clean))
    pd.testing.assert_frame_equal(published, wanted)


def test_the_new_receipt_replaces_the_old_one_and_its_data(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = published_again(account, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
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

    once = published_again(account, dirty.run_id, corrected(dirty, tmp_path, only_the_first))
    assert (once.rows.published, once.rows.quarantined_total) == (11, 1)
    twice = published_again(account, dirty.run_id, corrected(once, tmp_path, as_it_should_be))
    assert (twice.attempt, twice.rows.published, twice.rows.quarantined_total) == (2, 12, 0)


def test_rows_that_are_corrected_wrongly_go_back_into_quarantine(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = published_again(
        account, dirty.run_id, corrected(dirty, tmp_path, lambda row: row.update(order_id="")), allow_other_changes=True
    )
    assert (repaired.rows.published, repaired.rows.quarantined_total) == (10, 2)


def test_a_repair_that_would_get_the_file_rejected_changes_nothing(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    before = account.keys()
    contracts = account.parts.contracts
    limits = BadRows(max_count=1, max_fraction=None, policy="quarantine")
    contracts._by_name["orders"] = contracts.named("orders").model_copy(update={"bad_rows": limits})
    with pytest.raises(RepairRejected, match="at most 1"):
        published_again(
            account,
            dirty.run_id,
            corrected(dirty, tmp_path, lambda row: row.update(order_id="")),
            allow_other_changes=True,
        )
    assert read_receipt(account.parts.store, dirty.run_id) == dirty
    assert account.keys() == before


def test_a_run_without_rows_in_quarantine_cannot_be_repaired(account: Account, tmp_path: Path) -> None:
    some = tmp_path / "some.csv"
    some.write_text("_row_number,quantity\n1,1\n")
    clean, rejected = process(account, good_orders(2)), process(account, b"", "incoming/orders/empty.csv")
    for run_id, why in ((clean.run_id, "no rows in quarantine"), (rejected.run_id, "rejected"), ("0" * 32, "receipt")):
        with pytest.raises(NothingToRepair, match=why):
            published_again(account, run_id, some)


def test_a_quarantine_that_has_expired_cannot_be_repaired(account: Account, tmp_path: Path) -> None:
    receipt = process(account, orders(*DIRTY))
    path = corrected(receipt, tmp_path, lambda row: row.update(quantity="1"))
    account.parts.store.delete(next(output.key for output in receipt.outputs if output.kind == "quarantine"))
    with pytest.raises(NothingToRepair, match="expired"):
        published_again(account, receipt.run_id, path)


def test_an_upload_that_has_expired_cannot_be_repaired_and_its_rows_stay(account: Account, tmp_path: Path) -> None:
    receipt = process(account, orders(*DIRTY))
    path = corrected(receipt, tmp_path, lambda row: row.update(quantity="1", unit_price="1"))
    boto3.client("s3").delete_object(Bucket=LANDING, Key=KEY, VersionId=str(receipt.source.version_id))
    with pytest.raises(RepairRejected, match="does not exist"):
        published_again(account, receipt.run_id, path, allow_other_changes=True)
    assert read_receipt(account.parts.store, receipt.run_id) == receipt


def test_a_rerun_whose_corrections_have_expired_changes_nothing(account: Account, tmp_path: Path) -> None:
    """A re-run without the corrections would publish fewer rows; if rejected, it would withdraw the published ones."""
    receipt = process(account, orders(*DIRTY))
    path = corrected(receipt, tmp_path, lambda row: row.update(quantity="1", unit_price="1"))
    repaired = published_again(account, receipt.run_id, path, allow_other_changes=True)
    account.parts.store.delete(next(output.key for output in repaired.outputs if output.kind == "corrections"))
    with pytest.raises(CorrectionsGone):
        account.process(UploadMessage(**repaired.source.model_dump(exclude={"last_modified"}), attempt=2))
    assert read_receipt(account.parts.store, receipt.run_id) == repaired


def test_only_rows_in_quarantine_can_be_changed(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    file = tmp_path / "corrected.csv"
    file.write_text("_row_number,quantity\n1,999\n")
    with pytest.raises(CorrectionsUnusable, match="row 1 is not in the quarantine"):
        published_again(account, dirty.run_id, file, allow_other_changes=True)
    assert read_receipt(account.parts.store, dirty.run_id) == dirty


def test_a_cell_that_was_not_bad_changes_only_when_that_is_allowed(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))

    def also_the_customer(row: dict[str, str]) -> None:
        as_it_should_be(row)
        row["customer_id"] = "999999"

    file = corrected(dirty, tmp_path, also_the_customer)
    with pytest.raises(OtherCellsChanged, match="rows 4, 8, columns 'customer_id'"):
        published_again(account, dirty.run_id, file)
    assert read_receipt(account.parts.store, dirty.run_id) == dirty
    repaired = published_again(account, dirty.run_id, file, allow_other_changes=True)
    assert repaired.rows.published == 12


def test_a_row_that_was_corrected_before_changes_only_when_that_is_allowed(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    file = corrected(dirty, tmp_path, as_it_should_be)
    published_again(account, dirty.run_id, file)
    with pytest.raises(CorrectionsUnusable, match="changes nothing"):
        published_again(account, dirty.run_id, file)
    file = corrected(dirty, tmp_path, lambda row: row.update(quantity="7"))
    with pytest.raises(OtherCellsChanged):
        published_again(account, dirty.run_id, file)
    assert published_again(account, dirty.run_id, file, allow_other_changes=True).attempt == 2


def test_a_file_of_json_lines_is_repaired_as_well(account: Account, tmp_path: Path) -> None:
    def records(lines: list[str]) -> bytes:
        rows = csv.DictReader(io.StringIO("\n".join([HEADER, *lines])))
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    clean = process(account, gzip.compress(records(CLEAN)), "incoming/orders/clean.jsonl.gz")
    dirty = process(account, gzip.compress(records(DIRTY)), "incoming/orders/monday.jsonl.gz")
    repaired = published_again(account, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    assert (repaired.attempt, repaired.rows) == (1, clean.rows)
    published, wanted = (pd.read_parquet(output_of(receipt, "data", tmp_path)) for receipt in (repaired, clean))
    pd.testing.assert_frame_equal(published, wanted)


# --- rows that are dropped --------------------------------------------------------------------------------------------

TWICE = [*CLEAN[:5], order(4, quantity=7), *CLEAN[5:]]  # rows 4 and 6 have the same key


@pytest.fixture
def unique_orders(account: Account) -> Account:
    """Return the account with a contract for orders in which rows with a duplicate order_id are bad."""
    rule = {"expect_column_values_to_be_unique": {"column": "order_id"}}
    changes = {"expectations": [rule], "preprocess": [], "bad_rows": {"policy": "quarantine", "max_fraction": 0.5}}
    contracts = account.parts.contracts
    contracts._by_name["orders"] = overridden(contracts.named("orders"), changes)
    contracts._globs = Contracts(contracts)._globs
    return account


def dropped(receipt: Receipt, folder: Path, number: str, mark: str = "drop") -> Path:
    """Export the quarantined rows as CSV with `mark` in the drop column of one row; return the path of the file."""
    return corrected(receipt, folder, lambda row: row.update(_sluice_drop=mark if row["_row_number"] == number else ""))


def test_dropping_one_of_two_rows_with_the_same_key_publishes_the_other(unique_orders: Account, tmp_path: Path) -> None:
    clean = process(unique_orders, orders(*CLEAN), "incoming/orders/clean.csv")
    dirty = process(unique_orders, orders(*TWICE))
    assert (dirty.rows.rows_in, dirty.rows.quarantined_total) == (13, 2)
    repaired = published_again(unique_orders, dirty.run_id, dropped(dirty, tmp_path, "6"))
    assert (repaired.rows.rows_in, repaired.rows.published, repaired.rows.quarantined) == (13, 12, {})
    assert repaired.rows.dropped == {"dropped_by_repair": 1}
    assert "quarantine" not in [output.kind for output in repaired.outputs]
    published, wanted = (pd.read_parquet(output_of(receipt, "data", tmp_path)) for receipt in (repaired, clean))
    pd.testing.assert_frame_equal(published, wanted)


def test_later_attempts_and_repairs_keep_a_row_dropped_until_a_person_restores_it(
    unique_orders: Account, tmp_path: Path
) -> None:
    dirty = process(unique_orders, orders(*TWICE[:-1], order(12, unit_price="cheap")))
    marked = tmp_path / "marked.csv"
    marked.write_text("_row_number,_sluice_drop\n6,yes\n")
    once = published_again(unique_orders, dirty.run_id, marked)
    forced = again(unique_orders, once)
    assert (forced.rows.dropped, forced.rows.quarantined_total) == ({"dropped_by_repair": 1}, 1)
    with pytest.raises(CorrectionsUnusable, match="changes nothing"):
        published_again(unique_orders, dirty.run_id, marked)
    twice = published_again(
        unique_orders, dirty.run_id, corrected(forced, tmp_path, lambda row: row.update(unit_price="1"))
    )
    assert (twice.rows.dropped, twice.rows.published, twice.rows.quarantined) == ({"dropped_by_repair": 1}, 12, {})
    unmarked = tmp_path / "unmarked.csv"
    unmarked.write_text("_row_number,_sluice_drop\n6,no\n")
    with pytest.raises(OtherCellsChanged):
        published_again(unique_orders, dirty.run_id, unmarked)
    back = published_again(unique_orders, dirty.run_id, unmarked, allow_other_changes=True)
    assert (back.rows.dropped, back.rows.published, back.rows.quarantined_total) == ({}, 11, 2)


def test_an_invalid_value_in_the_drop_column_changes_nothing(unique_orders: Account, tmp_path: Path) -> None:
    dirty = process(unique_orders, orders(*TWICE))
    with pytest.raises(CorrectionsUnusable, match="row 6: _sluice_drop must be drop or yes"):
        published_again(unique_orders, dirty.run_id, dropped(dirty, tmp_path, "6", "delete"))
    assert read_receipt(unique_orders.parts.store, dirty.run_id) == dirty


# --- later attempts ---------------------------------------------------------------------------------------------------


def again(account: Account, receipt: Receipt) -> Receipt:
    """Process the object version of a receipt again, as a forced re-run does, and return the new receipt."""
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


def test_a_forced_rerun_keeps_the_corrections_of_repairs(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = published_again(account, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    before = pd.read_parquet(output_of(repaired, "data", tmp_path))
    forced = again(account, again(account, repaired))
    assert (forced.attempt, forced.rows) == (3, repaired.rows)
    pd.testing.assert_frame_equal(pd.read_parquet(output_of(forced, "data", tmp_path)), before)


def test_corrections_outlast_an_attempt_that_rejected_the_file(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = published_again(account, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
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


def test_a_repair_that_another_attempt_overtakes_is_a_conflict(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty = process(account, orders(*DIRTY))
    corrections = corrected(dirty, tmp_path, as_it_should_be)
    download = ObjectStore.download

    def download_late(store: ObjectStore, bucket: str, *given: Any, **more: Any) -> ObjectFacts:
        facts = download(store, bucket, *given, **more)
        if bucket == LANDING:
            monkeypatch.setattr(ObjectStore, "download", download)
            again(account, dirty)
        return facts

    monkeypatch.setattr(ObjectStore, "download", download_late)
    with pytest.raises(ReceiptConflict):
        published_again(account, dirty.run_id, corrections)
    assert published_again(account, dirty.run_id, corrections).rows.published == 12


def test_a_repair_that_two_attempts_overtake_at_its_commit_is_a_conflict(
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
        published_again(account, dirty.run_id, corrections)
    assert len(account.keys("data/")) == 1
    assert published_again(account, dirty.run_id, corrections).rows.published == 12
