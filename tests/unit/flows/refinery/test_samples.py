"""The sample files match their documentation."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from deployment.samples import orders
from flows.refinery.contract.loading import Contracts
from flows.refinery.errors import FileRejected
from tests.unit.flows.refinery.tables import misfits, numbers, read, typed

ROOT = Path(__file__).parents[4]
CONTRACTS = Contracts.load(ROOT / "flows" / "contracts")
PENGUINS = ROOT / "deployment" / "samples" / "penguins.csv"


def test_the_penguins_have_the_documented_rows_and_missing_values() -> None:
    contract = CONTRACTS.named("penguins")
    frame = typed(read(PENGUINS, contract), contract)
    assert len(frame) == 344
    assert frame.isna().sum().sum() == 19
    assert set(frame.columns) == set(contract.columns)
    measured = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    assert frame[measured].isna().any(axis=1).sum() == 2
    assert frame["sex"].isna().sum() == 11
    assert frame["body_mass_g"].mean() == pytest.approx(4201.75, abs=0.01)  # as given on the data's website


def test_the_penguins_fit_their_contract() -> None:
    contract = CONTRACTS.named("penguins")
    frame = typed(read(PENGUINS, contract), contract)
    for expectation in contract.expectations:
        given = expectation.arguments
        if expectation.name == "expect_column_values_to_be_between":
            assert frame[given["column"]].dropna().between(given["min_value"], given["max_value"]).all()
        if expectation.name == "expect_column_values_to_be_in_set":
            assert set(frame[given["column"]].dropna()) == set(given["value_set"])


def test_the_default_contract_reads_the_penguins_as_pandas_does_but_keeps_na_among_strings() -> None:
    by_pandas = pd.read_csv(PENGUINS).fillna({"sex": "NA"})
    default = CONTRACTS.named("default")
    read_by_us = typed(read(PENGUINS, default), default)
    pd.testing.assert_frame_equal(read_by_us.astype(by_pandas.dtypes), by_pandas)


@pytest.mark.parametrize("flavour", orders.FLAVOURS)
def test_the_same_seed_gives_the_same_file_and_every_row_has_an_expected_outcome(
    tmp_path: Path, flavour: orders.Flavour
) -> None:
    first, second, other = (tmp_path / name for name in "abc")
    written = orders.write(first, 200, flavour, seed=7)
    assert orders.write(second, 200, flavour, seed=7) == written
    orders.write(other, 200, flavour, seed=8)
    assert first.read_bytes() == second.read_bytes()
    if flavour not in ("empty", "header_only"):
        assert first.read_bytes() != other.read_bytes()
    assert written.rows == written.published + written.quarantined + written.dropped
    assert written.rejected == (written.published == 0)


@pytest.mark.parametrize("flavour", ["clean", "wrong_types", "bad_ranges", "duplicates", "too_many_bad", "header_only"])
def test_flavours_that_can_be_decoded_have_no_misfits(tmp_path: Path, flavour: orders.Flavour) -> None:
    path = tmp_path / "orders.csv"
    written = orders.write(path, 500, flavour)
    partitions = read(path, CONTRACTS.named("orders"))
    assert len(numbers(partitions)) == written.rows
    assert not misfits(partitions)
    assert list(partitions[0].frame.columns) == list(orders.HEADER) == list(CONTRACTS.named("orders").columns)


def test_some_of_the_bad_rows_are_misfits(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    written = orders.write(path, 500, "bad_rows")
    found = misfits(read(path, CONTRACTS.named("orders")))
    assert {misfit.reason for misfit in found} == {"too_few_fields", "too_many_fields"}
    assert 0 < len(found) < written.quarantined


@pytest.mark.parametrize(("flavour", "code"), [("empty", "empty_file"), ("not_a_table", "format_not_allowed")])
def test_files_that_are_not_tables_are_rejected_with_the_reason(
    tmp_path: Path, flavour: orders.Flavour, code: str
) -> None:
    path = tmp_path / "orders.csv"
    orders.write(path, 10, flavour)
    with pytest.raises(FileRejected) as caught:
        read(path, CONTRACTS.named("orders"))
    assert caught.value.code == code


@pytest.mark.parametrize("rows", [1, 4, 5, 24, 26])
def test_the_expected_outcome_of_a_small_file_adds_up(tmp_path: Path, rows: int) -> None:
    for flavour in orders.FLAVOURS:
        written = orders.write(tmp_path / "orders.csv", rows, flavour)
        assert written.rows == written.published + written.quarantined + written.dropped


def test_the_generator_can_be_run_from_the_command_line(tmp_path: Path) -> None:
    orders.main([str(tmp_path / "o.csv"), "--rows", "30", "--flavour", "missing_column"])
    assert "quantity" not in (tmp_path / "o.csv").read_text(encoding="utf-8").splitlines()[0]
    with pytest.raises(ValueError, match="1"):
        orders.write(tmp_path / "o.csv", 0)
