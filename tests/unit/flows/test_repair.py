"""Repair: upload dirty, correct the quarantine, bring it back in: the published rows are those of a clean upload."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import boto3
import pandas as pd
import pytest

from flows.refinery.contract.model import BadRows
from flows.refinery.judging.corrections import (
    Corrections,
    CorrectionsUnusable,
    export_quarantine,
    merge_into_csv,
    read_corrections,
)
from flows.refinery.publishing.protocol import IndexEntry, index_key
from flows.refinery.publishing.receipt import Receipt, Status
from flows.repair import NothingToRepair, RepairRejected, repair
from flows.stages import UploadRun
from tests.chain.files import HEADER, good_orders, order, orders
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account
from tests.unit.refinery.tables import a_contract

KEY = "incoming/orders/monday.csv"
CLEAN = [order(number) for number in range(1, 13)]
DIRTY = [*CLEAN]
DIRTY[3] = order(4, quantity=0)
DIRTY[7] = order(8, unit_price="cheap")
TORN = [*CLEAN]
TORN[5] = order(6) + ",too,many"


def process(account: Account, body: bytes, key: str = KEY) -> Receipt:
    with UploadRun(account.pipeline, account.upload(key, body)) as run:
        return run.run()


def output_of(receipt: Receipt, kind: str, folder: Path) -> Path:
    """A local copy of an output, under its own name."""
    (output,) = [output for output in receipt.outputs if output.kind == kind]
    path = folder / output.key.rsplit("/", 1)[-1]
    boto3.client("s3").download_file(PUBLISHED, output.key, str(path))
    return path


def corrected(receipt: Receipt, folder: Path, change: Callable[[dict[str, str]], None]) -> Corrections:
    """The quarantine as CSV, corrected by hand."""
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
    """What a person knows about the broken orders."""
    clean = dict(zip(HEADER.split(","), CLEAN[int(row["_row_number"]) - 1].split(","), strict=True))
    row.update(clean)


@pytest.mark.parametrize("lines", [DIRTY, TORN], ids=["wrong values", "a row that could not be decoded"])
def test_dirty_and_repaired_is_the_same_as_clean(account: Account, tmp_path: Path, lines: list[str]) -> None:
    clean = process(account, orders(*CLEAN), "incoming/orders/clean.csv")
    dirty = process(account, orders(*lines))
    assert dirty.rows.quarantined_total > 0
    repaired = repair(account.pipeline, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    assert (repaired.status, repaired.attempt, repaired.rows) == (Status.PUBLISHED, 1, clean.rows)
    published, wanted = (pd.read_parquet(output_of(receipt, "data", tmp_path)) for receipt in (repaired, clean))
    pd.testing.assert_frame_equal(published, wanted)


def test_the_new_receipt_replaces_the_old_one_and_its_data(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = repair(account.pipeline, dirty.run_id, corrected(dirty, tmp_path, as_it_should_be))
    store = account.pipeline.store
    assert store.receipt(dirty.run_id) == repaired
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

    once = repair(account.pipeline, dirty.run_id, corrected(dirty, tmp_path, only_the_first))
    assert (once.rows.published, once.rows.quarantined_total) == (11, 1)
    twice = repair(account.pipeline, dirty.run_id, corrected(once, tmp_path, as_it_should_be))
    assert (twice.attempt, twice.rows.published, twice.rows.quarantined_total) == (2, 12, 0)


def test_rows_that_are_corrected_wrongly_go_back_into_quarantine(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    repaired = repair(account.pipeline, dirty.run_id, corrected(dirty, tmp_path, lambda row: row.update(order_id="")))
    assert (repaired.rows.published, repaired.rows.quarantined_total) == (10, 2)


def test_a_repair_that_would_get_the_file_rejected_changes_nothing(account: Account, tmp_path: Path) -> None:
    dirty = process(account, orders(*DIRTY))
    before = account.keys()
    contracts = account.pipeline.contracts
    limits = BadRows(max_count=1, max_fraction=None, policy="quarantine")
    contracts._by_name["orders"] = contracts.named("orders").model_copy(update={"bad_rows": limits})
    with pytest.raises(RepairRejected, match="at most 1"):
        repair(account.pipeline, dirty.run_id, corrected(dirty, tmp_path, lambda row: row.update(order_id="")))
    assert account.pipeline.store.receipt(dirty.run_id) == dirty
    assert account.keys() == before


def test_what_has_nothing_in_quarantine_cannot_be_repaired(account: Account) -> None:
    some = Corrections(("quantity",), {1: {"quantity": "1"}})
    clean, rejected = process(account, good_orders(2)), process(account, b"", "incoming/orders/empty.csv")
    for run_id, why in ((clean.run_id, "no rows in quarantine"), (rejected.run_id, "rejected"), ("0" * 32, "receipt")):
        with pytest.raises(NothingToRepair, match=why):
            repair(account.pipeline, run_id, some)


def test_only_rows_in_quarantine_can_be_changed(account: Account) -> None:
    dirty = process(account, orders(*DIRTY))
    with pytest.raises(CorrectionsUnusable, match="row 1 is not in the quarantine"):
        repair(account.pipeline, dirty.run_id, Corrections(("quantity",), {1: {"quantity": "999"}}))
    assert account.pipeline.store.receipt(dirty.run_id) == dirty


# --- the file with the corrections ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "no column _row_number"),
        ("_row_number,a\nfour,1\n", "line 1 has no row number"),
        ("_row_number,a\n4,1\n4,2\n", "row 4 is there twice"),
    ],
)
def test_a_file_that_says_no_rows_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(CorrectionsUnusable, match=why):
        read_corrections(tmp_path / "x.csv")


def test_corrections_are_kept_and_read_back_as_they_were(tmp_path: Path) -> None:
    corrections = Corrections(("a", "b"), {3: {"a": "x", "b": None}, 1: {"a": " 007 ", "b": '"'}})
    corrections.write(tmp_path / "kept.parquet")
    assert read_corrections(tmp_path / "kept.parquet") == corrections


def merged(folder: Path, content: bytes, corrections: Corrections, **contract: object) -> bytes:
    (folder / "source").write_bytes(content)
    merge_into_csv(folder / "source", a_contract(**contract), corrections, folder / "merged")
    return (folder / "merged").read_bytes()


def test_every_other_text_of_the_file_stays_as_it_was(tmp_path: Path) -> None:
    content = b'id;price;note\n007;1,50;"a;b"\n008;x;NA\n1e3;2,75;\n'
    corrections = Corrections(("price",), {2: {"price": "9,25"}})
    assert merged(tmp_path, content, corrections) == b'id;price;note\n007;1,50;"a;b"\n008;9,25;NA\n1e3;2,75;\n'


def test_a_missing_value_is_written_as_it_was_or_as_the_contract_writes_it(tmp_path: Path) -> None:
    corrections = Corrections(("a", "b"), {1: {"a": None, "b": None}})
    written = merged(tmp_path, b"a,b\n-,2\n", corrections, format={"missing_values": ["NA", "-"]})
    assert written == b"a,b\n-,NA\n"


@pytest.mark.parametrize(
    ("corrections", "why"),
    [
        (Corrections(("c",), {1: {"c": "1"}}), "no column 'c'"),
        (Corrections(("a",), {9: {"a": "1"}}), "no row 9"),
        (Corrections(("a",), {1: {"a": "1"}}), "row 2 could not be decoded"),
    ],
)
def test_corrections_that_do_not_fit_are_refused(tmp_path: Path, corrections: Corrections, why: str) -> None:
    content = b"a,b\n1,2\n3,4,5\n" if "decoded" in why else b"a,b\n1,2\n"
    with pytest.raises(CorrectionsUnusable, match=why):
        merged(tmp_path, content, corrections)


def test_files_whose_values_have_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorrectionsUnusable, match="only CSV"):
        merged(tmp_path, b'{"a": 1}\n', Corrections(("a",), {1: {"a": "1"}}))
