"""Preprocessing steps give the right rows and fitted values, regardless of the partition size, or reject the file."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.preprocess.own_steps import StepsNotImportable, main
from flows.refinery.preprocess.step_base import ColumnMissing, NoColumnLeft, StepFailed
from flows.refinery.preprocess.steps import BUILT_IN, compile_steps
from flows.refinery.preprocess.table_steps import clean_name
from flows.refinery.refine import Refined, refine_file
from flows.refinery.write.outputs import OutputImpossible
from tests.unit.flows.refinery.tables import a_contract

PEOPLE = """id,name,age,city,joined
1, Ann ,30,Bern,2024-01-01
2,Bob,,Bonn,2024-01-02
3,Cid,50,,2024-01-03
1,Ann,40,Bonn,2024-01-04
"""
COLUMNS = {"id": "integer", "name": "string", "age": "integer", "city": "string", "joined": "date"}
ERRORS = {error.code: error for error in (ColumnMissing, ContractInvalid, NoColumnLeft, OutputImpossible, StepFailed)}


def prepare(
    work_dir: Path, steps: list[Any], content: str = PEOPLE, rows_per_partition: int = 2, **fields: Any
) -> Refined:
    """Refine a file with these steps. If the file is rejected, raise the error for its first reason."""
    (work_dir / "upload").write_text(content, encoding="utf-8")
    columns = fields.pop("columns", COLUMNS)
    contract = a_contract(columns=columns, preprocess=steps, **fields)
    refined = refine_file(work_dir / "upload", contract, work_dir, rows_per_partition=rows_per_partition)
    for reason in refined.rejected:
        raise ERRORS[reason.code](reason.message)
    return refined


def published(prepared: Refined) -> dict[str, list[Any]]:
    """Return column → values for the rows that would be published."""
    (output,) = prepared.outputs
    rows: dict[str, list[Any]] = pq.read_table(output.path).to_pydict()
    return rows


def column(folder: Path, name: str, *steps: Any, **options: Any) -> list[Any]:
    """Return the values of one column after the steps."""
    return published(prepare(folder, list(steps), **options))[name]


def test_the_built_in_steps_are_those_that_a_contract_may_name() -> None:
    from flows.refinery.contract.model import BUILT_IN_STEPS

    assert set(BUILT_IN) == set(BUILT_IN_STEPS), "list it in flows/refinery/contract/model.py: BUILT_IN_STEPS"


# --- columns and rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("Order ID", "order_id"),
        ("unitPrice (€)", "unit_price"),
        ("Straße", "strasse"),
        ("1st", "_1st"),
        ("  ", "column"),
        ("HTTPStatus", "httpstatus"),
        ("Größe", "grosse"),
        ("Gro\u0308ße", "grosse"),
        ("編號", "編號"),
        ("Имя Клиента", "имя_клиента"),
        ("Ｉｄ", "id"),
        ("ชื่อ", "ชื่อ"),
    ],
)
def test_names_become_snake_case(name: str, clean: str) -> None:
    assert clean_name(name) == clean


def test_clean_names_are_unique(tmp_path: Path) -> None:
    prepared = prepare(
        tmp_path, ["clean_column_names"], "a b,A-B,a_b_2,Day\n1,2,3,2024-01-01\n", columns={"Day": "date"}
    )
    assert prepared.columns_out == ("a_b", "a_b_2", "a_b_2_2", "day")
    assert str(pq.read_schema(prepared.outputs[0].path).field("day").type) == "date32[day]"


def test_columns_are_renamed_selected_and_dropped(tmp_path: Path) -> None:
    steps = [{"rename": {"columns": {"joined": "since"}}}, {"drop_columns": {"columns": ["age"]}}]
    prepared = prepare(tmp_path, [*steps, {"select": {"columns": ["since", "id"]}}])
    assert prepared.columns_out == ("since", "id")
    assert str(pq.read_schema(prepared.outputs[0].path).field("since").type) == "date32[day]"


def test_white_space_is_stripped(tmp_path: Path) -> None:
    assert column(tmp_path, "name", "strip_whitespace") == ["Ann", "Bob", "Cid", "Ann"]


@pytest.mark.parametrize(("keep", "ages"), [("first", [30, None, 50]), ("last", [None, 50, 40]), (False, [None, 50])])
@pytest.mark.parametrize("rows_per_partition", [1, 2, 100])
def test_duplicates_are_dropped_across_partitions(
    tmp_path: Path, keep: Any, ages: list[Any], rows_per_partition: int
) -> None:
    prepared = prepare(
        tmp_path, [{"drop_duplicates": {"subset": ["id"], "keep": keep}}], rows_per_partition=rows_per_partition
    )
    assert published(prepared)["age"] == ages
    assert prepared.dropped == {"drop_duplicates": 4 - len(ages)}


def test_rows_with_missing_values_are_dropped_and_counted(tmp_path: Path) -> None:
    assert prepare(tmp_path, ["drop_missing"]).dropped == {"drop_missing": 2}
    assert prepare(tmp_path, [{"drop_missing": {"subset": ["age", "city"], "how": "all"}}]).dropped == {}


def test_two_steps_with_the_same_name_are_counted_separately(tmp_path: Path) -> None:
    steps = [{"drop_missing": {"subset": ["age"]}}, {"drop_missing": {"subset": ["city"]}}]
    assert prepare(tmp_path, steps).dropped == {"drop_missing": 1, "drop_missing#2": 1}


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "ages"),
    [
        ({"value": 0}, [30, 0, 50, 40]),
        ({"strategy": "mean"}, [30, 40, 50, 40]),
        ({"strategy": "median"}, [30, 40, 50, 40]),
        ({"strategy": "mode"}, [30, 30, 50, 40]),
        ({"value": 1.5}, [30.0, 1.5, 50.0, 40.0]),
        ({"strategy": "mean", "fitted": {"age": 7.0}}, [30, 7, 50, 40]),
    ],
)
def test_missing_values_are_filled(tmp_path: Path, arguments: dict[str, Any], ages: list[Any]) -> None:
    assert column(tmp_path, "age", {"fill_missing": {"column": "age", **arguments}}, rows_per_partition=1) == ages


def test_the_value_that_fills_missing_values_is_recorded(tmp_path: Path) -> None:
    steps = [{"fill_missing": {"column": "city", "strategy": "mode"}}]
    prepared = prepare(tmp_path, steps)
    assert prepared.fitted == {"fill_missing": {"city": "Bonn"}}
    assert published(prepared)["city"] == ["Bern", "Bonn", "Bonn", "Bonn"]


def test_a_string_cannot_fill_a_column_of_numbers(tmp_path: Path) -> None:
    with pytest.raises(StepFailed):
        prepare(tmp_path, [{"fill_missing": {"column": "age", "value": "unknown"}}], columns={})


def test_numbers_are_clipped(tmp_path: Path) -> None:
    assert column(tmp_path, "age", {"clip": {"column": "age", "lower": 35, "upper": 45}}) == [35, None, 45, 40]
    assert column(tmp_path, "age", {"clip": {"column": "age", "upper": 45.5}}) == [30.0, None, 45.5, 40.0]


@pytest.mark.parametrize(
    ("arguments", "cities"),
    [
        ({"mapping": {"Bern": "CH"}}, ["CH", "Bonn", None, "Bonn"]),
        ({"mapping": {"Bern": "CH"}, "unmapped": "missing"}, ["CH", None, None, None]),
        ({"mapping": {"Bern": "CH"}, "default": "other"}, ["CH", "other", None, "other"]),
        ({"mapping": {"Bern": 1, "Bonn": 2}, "unmapped": "missing"}, [1, 2, None, 2]),
        ({"mapping": {"Bern": 1}}, ["1", "Bonn", None, "Bonn"]),
    ],
)
@pytest.mark.parametrize("rows_per_partition", [1, 100])
def test_values_are_mapped(
    tmp_path: Path, arguments: dict[str, Any], cities: list[Any], rows_per_partition: int
) -> None:
    steps = [{"map_values": {"column": "city", **arguments}}]
    assert published(prepare(tmp_path, steps, rows_per_partition=rows_per_partition))["city"] == cities


@pytest.mark.parametrize("written", ["2024-01-02", "2024-01-02T00:00:00", dt.date(2024, 1, 2)])
def test_dates_are_mapped_however_the_contract_writes_them(tmp_path: Path, written: Any) -> None:
    step = {"map_values": {"column": "joined", "mapping": {written: "second"}, "default": "other"}}
    assert column(tmp_path, "joined", step) == ["other", "second", "other", "other"]


def test_times_are_mapped_and_encoded_as_they_are_written(tmp_path: Path) -> None:
    options: dict[str, Any] = {"content": "t\n08:00\n09:00\n", "columns": {"t": "time"}}
    mapping = {"map_values": {"column": "t", "mapping": {"08:00:00": "early"}, "default": "late"}}
    assert column(tmp_path, "t", mapping, **options) == ["early", "late"]
    encoded = prepare(tmp_path, [{"ordinal_encode": {"column": "t"}}], **options)
    assert encoded.fitted["ordinal_encode"] == {"t": ["08:00:00", "09:00:00"]}


def test_a_boolean_cannot_fill_strings_and_a_number_cannot_fill_dates(tmp_path: Path) -> None:
    content = "city,joined\nBern,\n,2024-01-01\n"
    with pytest.raises(StepFailed):
        prepare(tmp_path, [{"fill_missing": {"column": "city", "value": False}}], content=content, columns={})
    into_dates = [{"fill_missing": {"column": "joined", "value": 0}}]
    with pytest.raises(ContractInvalid):
        prepare(tmp_path, into_dates, content=content, columns={"joined": "date"})


def test_an_unmapped_value_can_fail_the_step_and_is_reported_with_its_row(tmp_path: Path) -> None:
    steps = [{"map_values": {"column": "city", "mapping": {"Bern": "CH"}, "unmapped": "fail"}}]
    with pytest.raises(StepFailed, match="row 2"):
        prepare(tmp_path, steps)


def test_dates_are_parsed_and_other_values_fail_the_step_or_are_dropped(tmp_path: Path) -> None:
    content = "id,day\n1,31.12.2024\n2,soon\n"
    step: dict[str, Any] = {"column": "day", "format": "%d.%m.%Y"}
    options: dict[str, Any] = {"content": content, "columns": {"day": "string"}}
    with pytest.raises(StepFailed, match="row 2"):
        prepare(tmp_path, [{"parse_dates": step}], **options)
    prepared = prepare(tmp_path, [{"parse_dates": {**step, "errors": "drop"}}], **options)
    assert prepared.dropped == {"parse_dates": 1}
    assert str(pq.read_schema(prepared.outputs[0].path).field("day").type) == "timestamp[us, tz=UTC]"


def test_values_are_cast(tmp_path: Path) -> None:
    assert column(tmp_path, "age", {"cast": {"column": "age", "type": "string"}}) == ["30", None, "50", "40"]
    with pytest.raises(StepFailed):
        prepare(tmp_path, [{"cast": {"column": "city", "type": "integer"}}])


# --- steps for training data ------------------------------------------------------------------------------------------


def test_numbers_are_standardized_as_scikit_learn_does(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, [{"standardize": {"column": "age"}}])
    deviation = pd.Series([30.0, 50.0, 40.0]).std(ddof=0)
    assert prepared.fitted["standardize"] == {"age": {"mean": 40.0, "std": pytest.approx(deviation)}}
    assert published(prepared)["age"] == [pytest.approx(-10 / deviation), None, pytest.approx(10 / deviation), 0.0]


def test_a_constant_column_is_standardized_to_zero(tmp_path: Path) -> None:
    content, columns = "a\n5\n5\n", {"a": "number"}
    assert column(tmp_path, "a", {"standardize": {"column": "a"}}, content=content, columns=columns) == [0.0, 0.0]
    assert column(tmp_path, "a", {"min_max_scale": {"column": "a"}}, content=content, columns=columns) == [0.0, 0.0]


@pytest.mark.parametrize("size", [1e-170, 1e200])
def test_very_large_and_very_small_numbers_are_standardized(tmp_path: Path, size: float) -> None:
    content, columns = f"a\n{size}\n{3 * size}\n", {"a": "number"}
    assert column(tmp_path, "a", {"standardize": {"column": "a"}}, content=content, columns=columns) == pytest.approx(
        [-1, 1]
    )
    content = f"a\n{size}\n{size}\n"
    assert column(tmp_path, "a", {"standardize": {"column": "a"}}, content=content, columns=columns) == [0.0, 0.0]


def test_a_range_that_is_too_large_for_a_float_fails_the_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"content": "a\n1.7e308\n-1.7e308\n", "columns": {"a": "number"}}
    with pytest.raises(StepFailed, match="1 rows"):
        prepare(tmp_path, [{"min_max_scale": {"column": "a"}}], **options)


def test_pinned_values_scale_a_second_file_like_the_first(tmp_path: Path) -> None:
    step: dict[str, Any] = {"column": "age", "feature_range": [-1, 1]}
    learned = prepare(tmp_path, [{"min_max_scale": step}]).fitted["min_max_scale"]
    again = "id,name,age,city,joined\n9,Zoe,60,Bern,2024-01-01\n"
    pinned = [{"min_max_scale": {**step, "fitted": learned}}]
    assert column(tmp_path, "age", *pinned, content=again) == [2.0]


def test_categories_become_columns(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, [{"one_hot_encode": {"column": "city"}}])
    rows = published(prepared)
    assert (rows["city_bern"], rows["city_bonn"]) == ([1, 0, 0, 0], [0, 1, 0, 1])
    assert prepared.fitted == {"one_hot_encode": {"city": ["Bern", "Bonn"]}}
    assert "city" not in rows


def test_categories_become_numbers_and_an_unknown_one_is_an_error_or_missing(tmp_path: Path) -> None:
    assert column(tmp_path, "city", {"ordinal_encode": {"column": "city"}}) == [0, 1, None, 1]
    pinned = {"column": "city", "categories": {"city": ["Bonn"]}}
    with pytest.raises(StepFailed):
        prepare(tmp_path, [{"ordinal_encode": pinned}])
    assert column(tmp_path, "city", {"ordinal_encode": {**pinned, "handle_unknown": "ignore"}}) == [None, 0, None, 0]


def test_dates_become_categories(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, [{"one_hot_encode": {"column": "joined"}}])
    learned = prepared.fitted["one_hot_encode"]
    assert learned == {"joined": sorted(learned["joined"])}
    assert all(len(day) == len("2024-05-01") for day in learned["joined"])
    encoded = [name for name in published(prepared) if name.startswith("joined_")]
    assert encoded == [f"joined_{day.replace('-', '_')}" for day in learned["joined"]]
    again = prepare(tmp_path, [{"one_hot_encode": {"column": "joined", "fitted": learned}}])
    assert published(again) == published(prepared)


def test_a_key_is_on_the_same_side_of_the_split_in_every_file(tmp_path: Path) -> None:
    step = {"train_test_split": {"key": "id", "test_size": 0.3}}
    content = "id\n" + "\n".join(map(str, range(1000))) + "\n"
    sides = column(tmp_path, "split", step, content=content, columns={"id": "integer"}, rows_per_partition=300)
    assert 250 < sides.count("test") < 350
    other = "id\n\n" + "\n".join(map(str, range(500, 600))) + "\n"
    again = column(tmp_path, "split", step, content=other, columns={"id": "integer"})
    assert again[-100:] == sides[500:600]


def test_the_split_of_a_key_never_changes(tmp_path: Path) -> None:
    step = {"train_test_split": {"key": ["id", "name"], "test_size": 0.6, "seed": 1}}
    assert column(tmp_path, "split", "strip_whitespace", step) == SPLIT_OF_PEOPLE


# The blake2b hashes of ["1", id, name] as fractions of 2**64 are 0.632, 0.947, 0.594 and 0.632.
SPLIT_OF_PEOPLE = ["train", "train", "test", "train"]


# --- custom steps -----------------------------------------------------------------------------------------------------


def prepare_with(folder: Path, code: str, *steps: Any, **options: Any) -> Refined:
    """Refine a file with custom steps, whose code is written to the contract folder's steps.py."""
    (folder / "steps.py").write_text("import pandas as pd\n" + code, encoding="utf-8")
    return prepare(folder, list(steps), folder=folder, **options)


WHOLE_TABLE = "from flows.refinery.preprocess import whole_table\n\n\n@whole_table\n"


def test_a_custom_step_for_the_whole_table_gets_all_rows_together(tmp_path: Path) -> None:
    code = f"{WHOLE_TABLE}def rank(rows, by):\n    return rows.assign(rank=rows[by].rank())\n"
    prepared = prepare_with(tmp_path, code, {"steps.rank": {"by": "age"}}, rows_per_partition=1)
    assert published(prepared)["rank"] == [1.0, None, 3.0, 2.0]


def test_a_custom_step_gets_the_rows_partition_by_partition(tmp_path: Path) -> None:
    code = "def count(rows):\n    return rows.assign(rows=len(rows))\n"
    steps = ["drop_duplicates", "steps.count", {"fill_missing": {"column": "age", "strategy": "mean"}}]
    prepared = prepare_with(tmp_path, code, *steps, rows_per_partition=3)
    assert published(prepared)["rows"] == [3, 3, 3, 1]
    assert published(prepared)["age"] == [30.0, 40.0, 50.0, 40.0]


def test_a_custom_step_gets_an_empty_table_only_if_there_are_no_rows_at_all(tmp_path: Path) -> None:
    code = "def kind(rows):\n    return rows.assign(kind=rows['age'].map({30: 'a', 50: 'b'}))\n"
    for subset, kinds in ({"age"}, ["a", "b", None]), ({"age", "city"}, ["a", None]):
        drop = {"drop_missing": {"subset": sorted(subset)}}
        prepared = prepare_with(tmp_path, code, drop, "steps.kind", rows_per_partition=1)
        assert published(prepared)["kind"] == kinds
        assert prepared.dropped == {"drop_missing": 4 - len(kinds)}
    nobody = PEOPLE.splitlines()[0] + "\n1,x,,,\n"
    prepared = prepare_with(tmp_path, code, {"drop_missing": {"subset": ["age"]}}, "steps.kind", content=nobody)
    assert published(prepared)["kind"] == []
    assert prepared.dropped == {"drop_missing": 1}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ("rows['age'] * 1.5 if (rows['age'] == 30).any() else 'x'", "in the column 'new', and"),
        ("range(len(rows)) if (rows['age'] == 30).any() else 1.5", "float64 in the column 'new', and int64"),
        ("[None] if (rows['age'] == 30).any() else 1.5", "float64 in the column 'new', and"),
        ("rows['joined'] + pd.Timedelta(hours=int(rows['id'].iloc[0] > 1))", None),
    ],
)
def test_a_custom_step_that_returns_other_types_for_later_rows_is_named(
    tmp_path: Path, values: str, fault: str | None
) -> None:
    code = f"def new(rows):\n    return rows.assign(new={values})\n"
    if fault is None:
        column = "joined"
        code, fault = code.replace("new=", "joined="), f"more than dates in the column {column!r}"
    with pytest.raises(StepFailed, match="whole_table") as raised:
        prepare_with(tmp_path, code, "steps.new", rows_per_partition=1)
    assert fault in str(raised.value)


def test_later_rows_get_the_types_of_the_first_if_that_changes_no_value(tmp_path: Path) -> None:
    code = "def new(rows):\n    return rows.assign(new=0.5 if (rows['age'] == 30).any() else 1)\n"
    assert published(prepare_with(tmp_path, code, "steps.new", rows_per_partition=1))["new"] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ("np.float32(0.5)", "np.float64(0.1)"),
        ("1", "'007'"),
        ("0.5", "2**53 + 1"),
        ("True", "2"),
        ("pd.Series(1, rows.index, dtype=object)", "pd.Series('007', rows.index, dtype=object)"),
    ],
    ids=["a rounded number", "a code", "an integer that no float can represent", "a boolean", "a code as an object"],
)
def test_a_later_value_that_the_type_of_the_first_rows_would_change_is_an_error(
    tmp_path: Path, first: str, later: str
) -> None:
    code = (
        "import numpy as np\nimport pandas as pd\n\n"
        f"def new(rows):\n    return rows.assign(new={first} if (rows['id'] == 1).any() else {later})\n"
    )
    with pytest.raises((OutputImpossible, StepFailed)):
        prepare_with(tmp_path, code, "steps.new", rows_per_partition=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("rows['city'].astype('category')", ["Bern", "Bonn", None, "Bonn"]),
        ("(rows['id'] > 2).astype('category')", [False, False, True, False]),
        ("rows['age'].astype('category')", [30, None, 50, 40]),
        ("pd.Period('2026-01')", ["2026-01"] * 4),
        ("rows['id'].astype('float64') * 1j", ["1j", "2j", "3j", "1j"]),
        ("[10**30] * len(rows)", [str(10**30)] * 4),
        ("pd.cut(rows['age'].astype('float64'), [0, 35, 60])", ["(0, 35]", None, "(35, 60]", "(35, 60]"]),
        ("pd.Timestamp(1714550400123456789, tz='UTC')", [dt.datetime(2024, 5, 1, 8, 0, 0, 123456, dt.UTC)] * 4),
    ],
)
def test_a_custom_step_may_return_columns_of_unusual_pandas_types(
    tmp_path: Path, values: str, expected: list[Any]
) -> None:
    code = f"def new(rows):\n    return rows.assign(new={values})\n"
    assert published(prepare_with(tmp_path, code, "steps.new", rows_per_partition=1))["new"] == expected


def test_a_date_among_timestamps_does_not_cut_off_their_time(tmp_path: Path) -> None:
    code = (
        "import datetime as dt\n\n"
        "def new(rows):\n    return rows.assign(new=[dt.date(2024, 1, 1), *[dt.datetime(2024, 1, 1, 5)] * 3])\n"
    )
    new = published(prepare_with(tmp_path, code, "steps.new", rows_per_partition=4))["new"]
    assert new == ["2024-01-01", *["2024-01-01 05:00:00"] * 3]


@pytest.mark.parametrize(
    ("values", "output"), [("[[1, 2]] * len(rows)", "csv"), ("[{'a': 1}] * len(rows)", "csv"), ("[{}]", "parquet")]
)
def test_values_that_the_output_format_cannot_store_are_an_error(tmp_path: Path, values: str, output: str) -> None:
    code = f"def new(rows):\n    return rows.assign(new={values})\n"
    with pytest.raises(OutputImpossible, match=f"'new' holds .* which {output} files cannot store"):
        prepare_with(tmp_path, code, "steps.new", rows_per_partition=1, output={"format": output})


def test_times_are_published_as_times_in_any_form_that_a_file_may_have(tmp_path: Path) -> None:
    code = "def halve(rows):\n    return rows.assign(opens=rows['opens'].where(rows['id'] > 1, '7:30'), shuts='')\n"
    shops = "id,opens,shuts\n1,08:00,18:00\n2,,18:00\n"
    filled = {"fill_missing": {"column": "opens", "value": "8:00"}}
    columns = {"id": "integer", "opens": "time", "shuts": "time"}
    prepared = prepare_with(tmp_path, code, filled, "steps.halve", content=shops, columns=columns)
    assert published(prepared) == {"id": [1, 2], "opens": [dt.time(7, 30), dt.time(8)], "shuts": [None, None]}


@pytest.mark.parametrize("later", ["{'a': 1, 'b': 2}", "{'b': 2}", "['text']", "[[1]]"])
def test_values_of_later_rows_that_do_not_fit_the_type_of_the_first_are_an_error(tmp_path: Path, later: str) -> None:
    code = f"def new(rows):\n    return rows.assign(new=[{{'a': 1}} if n == 1 else {later} for n in rows['id']])\n"
    with pytest.raises((OutputImpossible, StepFailed)):
        prepare_with(tmp_path, code, "steps.new", rows_per_partition=1)


def test_steps_that_leave_no_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoColumnLeft, match=r"steps\.nothing"):
        prepare_with(tmp_path, "def nothing(rows):\n    return rows[[]]\n", "steps.nothing")
    with pytest.raises(NoColumnLeft, match="drop_columns"):
        prepare(tmp_path, [{"drop_columns": {"columns": list(COLUMNS)}}])


def test_a_number_beyond_64_bits_is_rejected_in_a_column_of_integers(tmp_path: Path) -> None:
    for step in ({"fill_missing": {"column": "age", "value": 10**20}}, {"clip": {"column": "age", "lower": 1e30}}):
        with pytest.raises(StepFailed):
            prepare(tmp_path, [step], columns={})


def test_a_custom_step_that_raises_is_named_with_line_and_row_but_without_a_value(tmp_path: Path) -> None:
    code = (
        "def check(rows):\n    if (rows['age'] == 50).any():\n        raise ValueError('secret 50')\n    return rows\n"
    )
    with pytest.raises(StepFailed) as raised:
        prepare_with(tmp_path, code, "steps.check")
    expected = "step steps.check raised ValueError in steps.py, line 4; the first row that it fails on is row 3"
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    "step",
    [
        {"drop_duplicates": {"subset": ["new"]}},
        {"fill_missing": {"column": "new", "strategy": "mode"}},
        {"map_values": {"column": "new", "mapping": {"a": "b"}}},
    ],
)
def test_a_step_that_cannot_use_what_a_custom_step_returned_is_named(tmp_path: Path, step: dict[str, Any]) -> None:
    code = "def new(rows):\n    return rows.assign(new=[[1]] * len(rows))\n"
    with pytest.raises(StepFailed, match=next(iter(step))):
        prepare_with(tmp_path, code, "steps.new", step)


def test_columns_whose_names_are_the_same_string_are_rejected(tmp_path: Path) -> None:
    code = "def new(rows):\n    return rows.assign(**{'1': 'a'}).rename(columns={'age': 1})\n"
    with pytest.raises(StepFailed, match="same name"):
        prepare_with(tmp_path, code, "steps.new")


def test_a_custom_step_that_exits_rejects_the_file_and_does_not_end_the_task(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="SystemExit"):
        prepare_with(tmp_path, "def f(rows):\n    raise SystemExit\n", "steps.f")


def test_a_custom_step_must_return_a_table_with_no_additional_rows(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="NoneType"):
        prepare_with(tmp_path, "def f(rows):\n    rows['x'] = 1\n", "steps.f")
    with pytest.raises(StepFailed, match="4 rows for 2"):
        prepare_with(tmp_path, "def f(rows):\n    return pd.concat([rows, rows])\n", "steps.f")


def test_rows_that_a_custom_step_drops_are_counted_under_its_name(tmp_path: Path) -> None:
    prepared = prepare_with(tmp_path, "def old(rows):\n    return rows[rows['age'] > 35]\n", "steps.old")
    assert prepared.dropped == {"steps.old": 2}


@pytest.mark.parametrize(
    ("steps", "named"),
    [
        ("import no_such_module\ndef f(rows):\n    return rows\n", "'no_such_module'.*requirements.txt"),
        ("def f(rows):\n    import no_such_module.part\n    return rows\n", "'no_such_module'.*requirements.txt"),
        ("from json import nothing\ndef f(rows):\n    return rows\n", "'json'.*ImportError in steps.py, line 2"),
        ("raise SystemExit\ndef f(rows):\n    return rows\n", "SystemExit in steps.py, line 2"),
        ("limit = 1 / 0\ndef f(rows):\n    return rows\n", "ZeroDivisionError in steps.py, line 2"),
    ],
)
def test_a_step_that_cannot_be_imported_is_a_fault_of_the_deployment(tmp_path: Path, steps: str, named: str) -> None:
    with pytest.raises(StepsNotImportable, match=named):
        prepare_with(tmp_path, steps, "steps.f")


def test_the_build_of_the_image_fails_if_the_steps_of_a_contract_cannot_be_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {"good": "import json\n", "bad": "import no_such_module\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "steps.py").write_text(text)
    assert main(tmp_path) == 1
    assert "steps.py of bad needs the module 'no_such_module'" in capsys.readouterr().err
    (tmp_path / "bad" / "steps.py").write_text("")
    assert main(tmp_path) == 0


# --- wrong arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ({"clip": {"column": "a", "lower": 2, "upper": 1}}, "lower 2.0 is greater than upper 1.0"),
        ({"clip": {"column": "a"}}, "give lower, upper or both"),
        ({"clip": {"column": "a", "uper": 1}}, "it has no argument 'uper'; did you mean 'upper'"),
        ({"fill_missing": {"column": "a"}}, "give either value or strategy"),
        ({"fill_missing": {"value": 1}}, "give either column or columns"),
        (
            {"fill_missing": {"column": "a", "strategy": "average"}},
            "strategy: Input should be 'mean', 'median' or 'mode'",
        ),
        ({"rename": {"columns": {}}}, "columns: Dictionary should have at least 1 item"),
        ({"train_test_split": {"key": "a", "test_size": 2}}, "test_size: Input should be less than 1"),
        (
            {"min_max_scale": {"column": "a", "feature_range": [1, 0]}},
            "must be two numbers, with the smaller one first",
        ),
        ({"min_max_scale": {"column": "a", "feature_range": [0, float("inf")]}}, "Input should be a finite number"),
        ({"clip": {"column": "a", "lower": float("nan")}}, "lower: Input should be a finite number"),
        ({"fill_missing": {"column": "a", "value": float("inf")}}, "value is inf; it should be a number"),
        ({"map_values": {"column": "a", "mapping": {1: 2}, "default": float("nan")}}, "default is nan"),
        ({"drop_duplicates": {"keep": "some"}}, "keep: Input should be 'first', 'last' or 'none'"),
        ("select", "it needs the argument 'columns'"),
    ],
)
def test_wrong_arguments_are_rejected_before_any_data_is_read(step: Any, fault: str) -> None:
    with pytest.raises(ContractInvalid, match=fault):
        compile_steps(a_contract(preprocess=[step]))


def test_a_missing_column_is_reported_with_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(ColumnMissing, match=r"'agee'.*'id', 'name'"):
        prepare(tmp_path, [{"drop_columns": {"columns": ["agee"]}}])


TIMES: dict[str, Any] = {"content": "t,b\n08:00,x\n,y\n", "columns": {"t": "time", "b": "string"}}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"cast": {"column": "t", "type": "string"}}], ["08:00:00", None]),
        ([{"map_values": {"column": "t", "mapping": {"08:00:00": "early"}}}], ["early", None]),
        ([{"drop_columns": {"columns": ["t"]}}, {"rename": {"columns": {"b": "t"}}}], ["x", "y"]),
        ([{"select": {"columns": ["b"]}}, {"rename": {"columns": {"b": "t"}}}], ["x", "y"]),
        ([{"drop_columns": {"columns": ["t"]}}, {"train_test_split": {"key": "b", "column": "t"}}], ["train", "train"]),
        ([{"fill_missing": {"column": "t", "value": "09:30"}}], [dt.time(8), dt.time(9, 30)]),
        ([{"rename": {"columns": {"t": "b", "b": "t"}}}, {"rename": {"columns": {"t": "b", "b": "t"}}}], None),
    ],
)
def test_a_column_is_published_as_times_as_long_as_it_contains_times(
    tmp_path: Path, steps: list[Any], expected: list[Any] | None
) -> None:
    assert column(tmp_path, "t", *steps, **TIMES) == (expected or [dt.time(8), None])


def test_a_string_that_is_not_a_time_cannot_fill_times(tmp_path: Path) -> None:
    steps = [{"fill_missing": {"column": "t", "value": "unknown"}}]
    with pytest.raises(ContractInvalid, match="'unknown'"):
        prepare(tmp_path, steps, **TIMES)


def test_timestamps_that_a_custom_step_makes_from_dates_keep_their_hours(tmp_path: Path) -> None:
    code = "def noon(rows):\n    return rows.assign(joined=rows['joined'] + pd.Timedelta(hours=12))\n"
    prepared = prepare_with(tmp_path, code, "steps.noon")
    assert published(prepared)["joined"][0] == dt.datetime(2024, 1, 1, 12)  # noqa: DTZ001 as the function left it


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    options: dict[str, Any] = {"content": "self,n\n a ,1\n,2\n", "columns": {"self": "string", "n": "integer"}}
    steps = ["strip_whitespace", {"fill_missing": {"column": "self", "value": "b"}}]
    assert column(tmp_path, "self", *steps, **options) == ["a", "b"]
    steps = [{"cast": {"column": "n", "type": "string"}}, {"train_test_split": {"key": "n", "column": "frame"}}]
    assert column(tmp_path, "n", *steps, **options) == ["1", "2"]


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for attempt in ("one", "two"):
        (tmp_path / attempt).mkdir()
        (output,) = prepare(tmp_path / attempt, ["strip_whitespace"]).outputs
        digests.add(output.sha256)
        assert output.size_bytes == output.path.stat().st_size
    assert len(digests) == 1


def test_csv_output_contains_the_values_unchanged(tmp_path: Path) -> None:
    content = 'name,=note,n\n=1+1,"@x, ""y""",-5\nplain,"+2\nlines",3\n'
    prepared = prepare(tmp_path, [], content, columns={"name": "string", "n": "integer"}, output={"format": "csv"})
    (output,) = prepared.outputs
    assert output.extension == ".csv"
    frame = pd.read_csv(output.path)
    assert list(frame.columns) == ["name", "=note", "n"]
    assert list(frame["name"]) == ["=1+1", "plain"]
    assert list(frame["=note"]) == ['@x, "y"', "+2\nlines"]
    assert list(frame["n"]) == [-5, 3]


@pytest.mark.parametrize(("compression", "extension"), [("gzip", ".csv.gz"), ("zstd", ".csv.zst"), ("none", ".csv")])
def test_csv_is_compressed_as_the_contract_declares(tmp_path: Path, compression: str, extension: str) -> None:
    prepared = prepare(tmp_path, [], output={"format": "csv", "compression": compression})
    (output,) = prepared.outputs
    assert output.extension == extension
    codec = None if compression == "none" else compression
    with pa.input_stream(str(output.path), compression=codec) as stream:
        assert len(stream.read().splitlines()) == 5


def test_rows_are_partitioned_into_folders_by_value_and_by_day(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, [], output={"partition_by": ["city", "day(joined)"]})
    folders = {output.folder: output.rows for output in prepared.outputs}
    assert folders == {
        "city=Bern/joined_day=2024-01-01/": 1,
        "city=Bonn/joined_day=2024-01-02/": 1,
        "city=Bonn/joined_day=2024-01-04/": 1,
        "city=__HIVE_DEFAULT_PARTITION__/joined_day=2024-01-03/": 1,
    }
    assert pq.read_schema(prepared.outputs[0].path).names == ["id", "name", "age", "joined"]


def test_a_partition_without_good_rows_writes_no_folder(tmp_path: Path) -> None:
    content, columns = "n,k\nx,a\n1,b\n", {"n": "integer", "k": "string"}
    output = {"partition_by": "k"}
    prepared = prepare(tmp_path, [], content, rows_per_partition=1, columns=columns, output=output)
    assert [file.folder for file in prepared.outputs] == ["k=b/"]


def test_no_value_of_the_data_can_leave_its_folder(tmp_path: Path) -> None:
    content = "k,n\n../../receipts/x,1\n..,2\n.,3\n" + "é" * 300 + ",4\n"
    prepared = prepare(tmp_path, [], content, columns={"k": "string"}, output={"partition_by": "k"})
    for output in prepared.outputs:
        assert output.folder.count("/") == 1
        assert output.folder.startswith("k=")
        assert len(output.folder) < 200
    assert prepared.rows_published == 4


def test_a_file_whose_folders_do_not_fit_into_an_object_key_is_rejected(tmp_path: Path) -> None:
    names = [f"k{number}" for number in range(6)]
    content = f"{','.join(names)},n\n{','.join(['x' * 150] * 6)},1\n"
    with pytest.raises(OutputImpossible):
        prepare(tmp_path, [], content, columns=dict.fromkeys(names, "string"), output={"partition_by": names})


DAYS = "d,b\n2024-01-01,1\n0099-01-02,2\n,3\n"


def test_dates_name_their_folders_as_days(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, [], DAYS, columns={"d": "date"}, output={"partition_by": "d"})
    folders = [output.folder for output in prepared.outputs]
    assert folders == ["d=0099-01-02/", "d=2024-01-01/", "d=__HIVE_DEFAULT_PARTITION__/"]


def test_dates_cast_to_strings_are_days(tmp_path: Path) -> None:
    steps = [{"cast": {"column": "d", "type": "string"}}]
    prepared = prepare(tmp_path, steps, DAYS, columns={"d": "date"})
    assert pq.read_table(prepared.outputs[0].path)["d"].to_pylist() == ["2024-01-01", "0099-01-02", None]
