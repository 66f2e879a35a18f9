"""A proposed contract can be loaded, accepts its sample, and contains what a person would have written."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.refinery.contract.loading import ContractInvalid, load_contract
from flows.refinery.propose.expectations import wider
from flows.refinery.propose.identifiers import identifier_regex
from flows.refinery.propose.proposal import Proposal, propose_contract
from flows.refinery.read.rejections import EmptyFile
from flows.refinery.refine import refine_file

ROOT = Path(__file__).parents[5]


def propose(folder: Path, content: str, name: str = "sample.csv") -> Proposal:
    """Return the proposed contract for a file with this content."""
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return propose_contract(path, "things")


def column_of(proposal: Proposal, name: str) -> dict[str, Any]:
    """Return the fields of a column in the proposed contract that differ from their defaults."""
    return proposal.contract.columns[name].model_dump(exclude_defaults=True)


def expected_of(proposal: Proposal, column: str) -> dict[str, dict[str, Any]]:
    """Return name → arguments for the proposed expectations on a column.

    The names lack the prefix expect_column_values_to_, and the arguments lack the column.
    """
    return {
        expectation.name.removeprefix("expect_column_values_to_"): {
            name: value for name, value in expectation.arguments.items() if name != "column"
        }
        for expectation in proposal.contract.expectations
        if expectation.columns == [column]
    }


def csv_of(**columns: Sequence[Any]) -> str:
    """Return the content of a CSV file with these columns."""
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows), ""])


# --- random tables ----------------------------------------------------------------------------------------------------

_NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf", "Co", "Cn")), min_size=1, max_size=12
).filter(str.strip)
_FIRST, _LAST = dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)  # noqa: DTZ001 hypothesis adds zones itself
_DATES = st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1))
_VALUES = st.sampled_from(
    [
        st.integers(-(10**6), 10**6),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False, width=32),
        st.floats(),
        st.booleans(),
        _DATES.map(str),
        st.datetimes(_FIRST, _LAST).map(str),
        _DATES.map(lambda day: day.strftime("%d/%m/%Y")),
        st.sampled_from(["NA", "1", "2.5", "007", "yes", "x"]),
        st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=10),
        st.from_regex(r"[A-Z]{3}-[0-9]{4}", fullmatch=True),
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Generate tables of 1 to 30 rows, in which each column has values of one type and some may be missing."""
    names = draw(st.lists(_NAMES, min_size=1, max_size=4, unique=True))
    rows = draw(st.integers(1, 30))
    columns = {}
    for name in names:
        values = draw(_VALUES)
        if draw(st.booleans()):
            values = st.none() | values
        columns[name] = draw(st.lists(values, min_size=rows, max_size=rows))
    return columns


def _as_csv(table: dict[str, list[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue().encode()


def _as_json_lines(table: dict[str, list[Any]]) -> bytes:
    rows = (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
    return "\n".join(json.dumps(row, allow_nan=False) for row in rows).encode()


def _as_parquet(table: dict[str, list[Any]]) -> bytes:
    frame = pd.DataFrame({name: pd.Series(values) for name, values in table.items()})
    mixed = [name for name in frame if frame[name].dtype == object]
    return frame.astype(dict.fromkeys(mixed, "str")).to_parquet()


@pytest.mark.parametrize("written", [_as_csv, _as_json_lines, _as_parquet])
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(table=tables())
def test_the_contract_proposed_for_any_table_loads_and_quarantines_only_the_misfits(
    written: Any, table: dict[str, Any]
) -> None:
    try:
        content = written(table)
    except ValueError:  # JSON has no infinity
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sample").write_bytes(content)
        proposal = propose_contract(folder / "sample", "things")
        (folder / "things").mkdir()
        (folder / "things" / "contract.yaml").write_text(proposal.text, encoding="utf-8")
        contract = load_contract(folder / "things")
        refined = refine_file(folder / "sample", contract, folder)
    misfits = sum(proposal.profile.misfits.values())
    assert refined.rejected == ()
    assert sum(refined.quarantined.values()) == misfits
    assert refined.rows_in - misfits == refined.rows_published + sum(refined.dropped.values())


def test_a_sample_with_rows_that_cannot_be_decoded_still_gives_a_contract(tmp_path: Path) -> None:
    proposal = propose(tmp_path, "a,b\n1,2\n1,2,3\n4,5\n")
    assert proposal.refined.rejected == ()
    assert sum(proposal.refined.quarantined.values()) == 1
    assert "# 1 row of the sample could not be decoded" in proposal.text
    assert proposal.contract.bad_rows.max_fraction is None


def test_a_sample_without_rows_gives_its_columns(tmp_path: Path) -> None:
    proposal = propose(tmp_path, "a,b\n")
    assert list(proposal.contract.columns) == ["a", "b"]
    assert proposal.contract.expectations == ()


def test_an_empty_sample_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(EmptyFile):
        propose(tmp_path, "")


def test_a_name_that_no_dataset_can_have_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text("a\n1\n")
    with pytest.raises(ContractInvalid) as caught:
        propose_contract(tmp_path / "sample.csv", "../../Etc")
    assert ": dataset: " in str(caught.value)


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        (["1", "2", "-3"], {"type": "integer", "nullable": False}),
        (["1", "", "3"], {"type": "integer"}),
        (["1.0", "2.0"], {"type": "number", "nullable": False}),
        (["1", "2.5"], {"type": "number", "nullable": False}),
        (["1", "NA", "3"], {"type": "integer", "missing_values": ("", "NA")}),
        (["1", "?", "3.5"], {"type": "number", "missing_values": ("", "?")}),
        (["007", "123"], {"type": "string", "nullable": False}),
        (["+4930123", "+4989123"], {"type": "string", "nullable": False}),
        (["12345678901234567890", "1"], {"type": "string", "nullable": False}),
        (["true", "false"], {"type": "boolean", "nullable": False}),
        (["yes", "no"], {"type": "boolean", "nullable": False}),
        (["Y", "N"], {"type": "boolean", "nullable": False}),
        (["F", "F"], {"type": "string", "nullable": False}),
        (["2024-01-31", "2024-02-01"], {"type": "date", "nullable": False}),
        (["2024-01-31T10:00:00Z", "2024-02-01"], {"type": "timestamp", "nullable": False}),
        (["31.01.2024", "01.02.2024"], {"type": "date", "nullable": False, "format": "%d.%m.%Y"}),
        (["31/01/2024", "01/02/2024"], {"type": "date", "nullable": False, "format": "%d/%m/%Y"}),
        (["01/31/2024", "02/01/2024"], {"type": "date", "nullable": False, "format": "%m/%d/%Y"}),
        (["01/02/2024", "02/01/2024"], {"type": "string", "nullable": False}),
        (["08:00", "23:59:59"], {"type": "time", "nullable": False}),
        (["1012", "1e3", "998.5"], {"type": "number", "nullable": False}),
        (["1012", "1e3"], {"type": "string", "nullable": False}),
        (["998.5", "12E3"], {"type": "string", "nullable": False}),
        (["998.5", "1e3", "007"], {"type": "string", "nullable": False}),
        (["2024", "2025"], {"type": "integer", "nullable": False}),
        (["", ""], {"type": "string"}),
        (["NA", "x"], {"type": "string", "nullable": False}),
        (["1", "two"], {"type": "string", "nullable": False}),
    ],
)
def test_a_column_gets_the_type_that_a_person_would_give_it(
    tmp_path: Path, values: list[str], fields: dict[str, Any]
) -> None:
    assert column_of(propose(tmp_path, csv_of(other=["x"] * len(values), c=values)), "c") == fields


def test_a_string_that_means_missing_among_numbers_is_a_value_among_strings(tmp_path: Path) -> None:
    numbers = [*range(1, 57), "NA", "none", "", 60]
    countries, levels = ["NA", "DE", "FR"] * 20, ["none", "low", "high"] * 20
    proposal = propose(tmp_path, csv_of(id=range(60), country=countries, level=levels, amount=numbers))
    assert column_of(proposal, "amount") == {"type": "integer", "missing_values": ("", "NA", "none")}
    assert "3 of 60 missing, written as NA or none" in proposal.text
    assert column_of(proposal, "country") == column_of(proposal, "level") == {"type": "string", "nullable": False}
    assert proposal.contract.format.missing_values == ("",)
    assert expected_of(proposal, "country") == {"be_in_set": {"value_set": ["DE", "FR", "NA"]}}
    assert expected_of(proposal, "level") == {"be_in_set": {"value_set": ["high", "low", "none"]}}


def test_decimal_commas_and_semicolons_are_detected_and_declared(tmp_path: Path) -> None:
    proposal = propose(tmp_path, "name;price\na;1.234,50\nb;2,75\n")
    assert column_of(proposal, "price") == {"type": "number", "nullable": False}
    written = proposal.contract.format
    assert (written.delimiter, written.decimal, written.thousands) == (";", ",", ".")


def test_json_lines_keep_their_own_types(tmp_path: Path) -> None:
    rows = [{"id": "7", "n": 1, "ok": True, "more": {"a": 1}}, {"id": "8", "n": 2, "ok": False, "more": {}}]
    proposal = propose(tmp_path, "\n".join(map(json.dumps, rows)), "sample.jsonl")
    assert {name: column.type for name, column in proposal.contract.columns.items()} == {
        "id": "string",
        "n": "integer",
        "ok": "boolean",
        "more": "json",
    }
    assert proposal.profile.source_format.type == "jsonl"


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("date", [19580329, 19600101], "date"),
        ("birthDay", [19580329, 19600101], "date"),
        ("order", [19580329, 19600101], "integer"),
        ("order", range(20240101, 20240111), "date"),
        ("date", [19580329, 19601301], "integer"),
        ("date", [19580329, 30000101], "integer"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_dates_written_as_digits_are_dates(
    tmp_path: Path, name: str, values: Sequence[int], kind: str, form: str
) -> None:
    path = tmp_path / "sample"
    frame = pd.DataFrame({name: values, "n": 1.5})
    if form == "parquet":
        frame.to_parquet(path)
    else:
        path.write_text(frame.to_csv(index=False) if form == "csv" else frame.to_json(orient="records", lines=True))
    column = propose_contract(path, "things").contract.columns[name]
    assert (column.type, column.format) == (kind, "%Y%m%d" if kind == "date" else None)


def test_a_comment_names_strings_that_may_mean_missing_and_how_to_declare_them(tmp_path: Path) -> None:
    proposal = propose(tmp_path, csv_of(id=range(3), tail=["N1", "NA", "NA"], code=["-", "x", "NA"]))
    notes = {column.name: column.note for column in proposal.profile.columns}
    assert notes["tail"].startswith("2 times NA")
    assert notes["tail"].endswith("missing_values: ['', 'NA']")
    assert notes["code"].startswith("1 time -, 1 time NA")
    assert notes["id"] == ""


def test_the_format_is_declared_only_if_an_option_needs_it(tmp_path: Path) -> None:
    proposal = propose(tmp_path, "id,n\n1,2\n")
    assert "format" not in proposal.contract.model_fields_set
    assert "# format: csv" in proposal.text
    (tmp_path / "other.jsonl").write_text('{"id": 3, "n": 4}\n')
    refined = refine_file(tmp_path / "other.jsonl", proposal.contract, tmp_path)
    assert (refined.rejected, refined.quarantined, refined.rows_in) == ((), {}, 1)
    assert propose(tmp_path, "id;price\n1;2,5\n").contract.format.type == "csv"


# --- expectations -----------------------------------------------------------------------------------------------------


def test_a_column_of_a_few_repeated_values_gets_a_set(tmp_path: Path) -> None:
    proposal = propose(tmp_path, csv_of(id=range(12), country=["DE", "AT", "NO"] * 4))
    assert expected_of(proposal, "country") == {"be_in_set": {"value_set": ["AT", "DE", "NO"]}}


def test_a_key_is_unique_and_has_no_range(tmp_path: Path) -> None:
    proposal = propose(tmp_path, csv_of(order_id=range(1000, 1012), quantity=[1, 2, 3] * 4))
    assert set(expected_of(proposal, "order_id")) == {"be_unique"}


def test_values_that_are_all_different_by_chance_are_not_a_key(tmp_path: Path) -> None:
    proposal = propose(tmp_path, csv_of(id=range(6), weight=[51, 62, 73, 84, 95, 46]))
    assert set(expected_of(proposal, "weight")) == {"be_between"}


def test_identifiers_with_one_pattern_get_a_regex(tmp_path: Path) -> None:
    proposal = propose(tmp_path, csv_of(order=[f"ORD-{number:08d}" for number in range(9)], n=range(9)))
    assert expected_of(proposal, "order")["match_regex"] == {"regex": "^ORD-[0-9]{8}$"}


@pytest.mark.parametrize(
    ("name", "values", "bounds"),
    [
        ("month", [2, 3], (1, 12)),
        ("birthMonth", [2, 3], (1, 12)),
        ("day", [28, 3], (1, 31)),
        ("orders_per_day", [20, 3], (0, 25)),
        ("day", [320, 3], (0, 400)),
        ("hour", [1, 22], (0, 23)),
        ("minute", [5, 45], (0, 59)),
        ("discount_pct", [5.5, 20], (0, 100)),
        ("share %", [5.5, 20], (0, 100)),
        ("pct", [0.1, 0.7], (0, 1)),
        ("humidity", [20, 80], (0, 100)),
        ("pct_change", [-20, 80], (-50, 100)),
        ("lat", [47.1, 47.9], (-90, 90)),
        ("Longitude", [8.1, 8.9], (-180, 180)),
        ("lat", [4700.5, 4790.5], (4690, 4800)),
        ("dep_time", [517, 1830], (0, 2359)),
        ("dep_time", [517, 2400], (0, 2400)),
        ("dep_time", [517, 1861], (0, 2000)),
        ("air_time", [20, 650], (0, 750)),
    ],
)
def test_a_range_follows_from_the_name_and_the_values(
    tmp_path: Path, name: str, values: list[float], bounds: tuple[float, float]
) -> None:
    proposal = propose(tmp_path, f"id,{name}\n" + "".join(f"{place},{value}\n" for place, value in enumerate(values)))
    between = expected_of(proposal, name)["be_between"]
    assert (between["min_value"], between["max_value"]) == bounds


def test_a_month_has_its_range_even_if_the_sample_has_few_months(tmp_path: Path) -> None:
    proposal = propose(tmp_path, csv_of(id=range(12), month=[1] * 6 + [2] * 6, year=[2013] * 12))
    assert expected_of(proposal, "month") == {"be_between": {"min_value": 1, "max_value": 12}}
    assert expected_of(proposal, "year") == {}


def compound_of(proposal: Proposal) -> list[list[str]]:
    name = "expect_compound_columns_to_be_unique"
    return [one.arguments["column_list"] for one in proposal.contract.expectations if one.name == name]


def test_columns_that_are_a_key_together_are_found(tmp_path: Path) -> None:
    pairs = [(order, line) for order in range(30) for line in range(1, 4)]
    table = csv_of(order=[100 + a for a, _ in pairs], line=[b for _, b in pairs], amount=[a % 7 for a, _ in pairs])
    assert compound_of(propose(tmp_path, table)) == [["order", "line"]]
    triples = [(day, shop, till) for day in range(1, 11) for shop in "ABC" for till in range(5)]
    days, shops, tills = zip(*triples, strict=True)
    table = csv_of(sold=[day % 3 for day in days], day=days, shop=shops, till=tills)
    assert compound_of(propose(tmp_path, table)) == [["day", "shop", "till"]]


def test_columns_that_are_unique_together_by_chance_are_not_a_key(tmp_path: Path) -> None:
    table = csv_of(a=[1, 2, 3, 4, 5, 1], b=[1, 2, 3, 4, 1, 5], c=["x"] * 6)
    assert compound_of(propose(tmp_path, table)) == []


def test_a_single_key_needs_no_other_column(tmp_path: Path) -> None:
    table = csv_of(id=range(90), a=[n // 3 for n in range(90)], b=[n % 3 for n in range(90)])
    assert compound_of(propose(tmp_path, table)) == []


def test_first_names_that_differ_by_chance_are_not_a_key(tmp_path: Path) -> None:
    names = [f"{first}{second}" for first in "ABCDEFG" for second in ("nna", "ertha", "lara")]
    assert expected_of(propose(tmp_path, csv_of(first_name=names, n=[1.5] * len(names))), "first_name") == {}


@pytest.mark.parametrize(
    ("texts", "regex"),
    [
        (["a@b.org", "c.d@e.com"], r"^[^@\s]+@[^@\s]+\.[^@\s]+$"),
        (["007", "123"], "^[0-9]{3}$"),
        (["AB-1", "AC-22"], "^[A-Z]{2}-[0-9]{1,2}$"),
        (["v1.2", "v1.3"], r"^v1\.[0-9]$"),
        (["Anna", "Bert"], None),
        (["Room 1", "Room 2"], None),
        (["AB-1", "1-AB"], None),
        ([], None),
    ],
)
def test_identifiers_have_a_regex_only_if_they_share_a_pattern(texts: list[str], regex: str | None) -> None:
    found = identifier_regex(texts)
    assert (found[0] if found else None) == regex


@pytest.mark.parametrize(
    ("low", "high", "whole", "bounds"),
    [
        (32.1, 59.6, False, (25, 65)),
        (1, 9, True, (1, 10)),
        (0.0, 0.7, False, (0, 1)),
        (-5, -1, True, (-6, 0)),
        (2007, 2009, True, (2006, 2010)),
        (0.001, 1200.0, False, (0, 1500)),
        (1e300, 2e300, False, None),
    ],
)
def test_bounds_are_round_and_a_little_wider(low: float, high: float, whole: bool, bounds: Any) -> None:
    assert wider(low, high, whole=whole) == bounds


@given(st.floats(-1e15, 1e15), st.floats(-1e15, 1e15), st.booleans())
def test_bounds_include_every_value(one: float, other: float, whole: bool) -> None:
    low, high = sorted((float(int(one)), float(int(other))) if whole else (one, other))
    bounds = wider(low, high, whole=whole)
    assert bounds is None or bounds[0] <= low <= high <= bounds[1]


def test_every_proposed_column_and_expectation_has_a_comment_with_its_evidence(tmp_path: Path) -> None:
    proposal = propose(tmp_path, csv_of(id=range(12), country=["DE", "AT", "NO"] * 4, price=[1.5, 2.5, 9.5] * 4))
    lines = [line for line in proposal.text.splitlines() if line.startswith("  ")]
    assert [line for line in lines if "  # " not in line] == []
    assert "# saw AT 4 times, DE 4 times, NO 4 times" in proposal.text.replace("DE 4 times, AT", "AT 4 times, DE")
    assert "# saw 1.5 to 9.5" in proposal.text


def test_column_names_are_cleaned_only_if_that_changes_one(tmp_path: Path) -> None:
    assert [step.name for step in propose(tmp_path, "First Name,n\na,1\n").contract.preprocess] == [
        "clean_column_names"
    ]
    assert propose(tmp_path, "plain,n\na,1\n").contract.preprocess == ()
