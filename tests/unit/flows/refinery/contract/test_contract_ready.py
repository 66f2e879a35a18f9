"""What is wrong in a contract is told when it is loaded, with file, line and fix: GX and the steps never meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.refinery.contract.consistency import inconsistencies
from flows.refinery.contract.expectation_faults import faults_of
from flows.refinery.contract.time_formats import format_fault
from flows.refinery.contract.vocabulary import vocabulary
from flows.refinery.contracts import ContractInvalid, load_contract, load_contracts, overridden
from flows.refinery.preprocess.table_steps import Select
from flows.refinery.refine import judge_file
from flows.refinery.validate.arrow_spool import ROW_NUMBER
from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import METHODS, Method
from tests.unit.flows.refinery.contract.test_contract import SHIPPED, write_contract
from tests.unit.flows.refinery.tables import a_contract

COLUMNS = "columns: {id: string, n: integer, day: date, ok: boolean}\nunknown_columns: freeze\n"


def fault_of(root: Path, text: str, **others: str) -> str:
    """The fault of a contract that begins with four columns, of which n is on line 2 and the rest on line 4."""
    folder = write_contract(root, f"dataset: orders\n{COLUMNS}{text}\n", **others)
    with pytest.raises(ContractInvalid) as caught:
        load_contract(folder)
    return str(caught.value).replace(str(folder) + "/", "")


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("fill_missing: {colum: n, value: 0}", "it has no argument 'colum'; did you mean 'column'?"),
        ("fill_missing: {column: n}", "give either value or strategy"),
        ("fill_missing: {column: n, strategy: average}", "'mean', 'median' or 'mode'"),
        ("fill_missing: {column: n, value: none}", "'none' does not fit into the column 'n'; it is to be a number"),
        ("fill_missing: {column: m, value: 0}", "there is no column 'm' at this point; there are 'id', 'n'"),
        ("rename: {}", "it needs the argument 'columns'"),
        ("clip: {column: n, lower: 5, upper: 1}", "lower 5.0 is greater than upper 1.0"),
        ("clip: {column: day, lower: 5}", "the column 'day' holds no numbers"),
        ("standardize: {column: id}", "the column 'id' holds no numbers; cast it first"),
        ("cast: {column: n, type: int}", "'string', 'integer', 'number' or 'boolean'; found 'int'"),
        ("train_test_split: {key: idd}", "did you mean 'id'"),
        ("train_test_split: {key: id, test_size: 20}", "less than 1"),
    ],
)
def test_a_step_that_cannot_work_is_refused_when_the_contract_is_loaded(tmp_path: Path, step: str, fault: str) -> None:
    said = fault_of(tmp_path, f"preprocess:\n  - clean_column_names\n  - {step}")
    assert said.startswith("contract.yaml:6: preprocess: ")
    assert fault in said


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (
            "standardize: {column: n, fitted: {n: 5}}",
            "fitted: for the column 'n' it is 5; it is to be a number each for",
        ),
        ("standardize: {column: n, fitted: {n: {mean: 1}}}", "a number each for mean and std"),
        ("standardize: {column: n, fitted: {n: {mean: a, std: 1}}}", "a number each for mean and std"),
        ("min_max_scale: {column: n, fitted: {n: {mean: 1, std: 2}}}", "a number each for min and max"),
        ("one_hot_encode: {column: id, fitted: {id: 5}}", "a list of different texts, numbers or flags"),
        ("ordinal_encode: {column: id, categories: {id: [[1]]}}", "a list of different texts, numbers or flags"),
        ("fill_missing: {column: n, strategy: mean, fitted: {n: [1]}}", "the one value that fills the column"),
        ("map_values: {column: id, mapping: {a: [1, 2]}}", "'a' becomes [1, 2]; it is to be a text, a number, a flag"),
        ("select: {columns: [n, n]}", "the column 'n' is named twice"),
        ("drop_duplicates: {subset: [n, n]}", "the column 'n' is named twice"),
        ("drop_columns: {columns: [id, n, day, ok]}", "step drop_columns leaves no column"),
        ("fill_missing: {column: n, value: 99999999999999999999}", "does not fit into the 64 bits of the column 'n'"),
        ("clip: {column: n, lower: 1e+30}", "does not fit into the 64 bits of the column 'n'"),
        ("parse_dates: {column: id, timezone: Europe/Berln}", "did you mean 'Europe/Berlin'?"),
        ("parse_dates: {column: id, format: '%Q'}", "holds %Q, which is no code that can be read"),
        ("parse_dates: {column: id, format: dd.mm.yyyy}", "holds no strftime code"),
    ],
)
def test_an_argument_of_a_wrong_shape_is_told_with_its_line(tmp_path: Path, step: str, fault: str) -> None:
    said = fault_of(tmp_path, f"preprocess:\n  - clean_column_names\n  - {step}")
    assert said.startswith("contract.yaml:6: preprocess: ")
    assert fault in said


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("fill_missing: {column: id, value: NO}", "it is to be text (put quotes around it; YAML reads yes, no, on"),
        ("fill_missing: {column: id, value: 5}", "it is to be text (put quotes around it)"),
        ("fill_missing: {column: n, value: true}", "it is to be a number"),
        ("fill_missing: {column: n, value: .nan}", "it is to be a number"),
        ("fill_missing: {column: ok, value: 1}", "it is to be true or false"),
        ("fill_missing: {column: day, value: 0}", "it is to be a date, as 2024-05-01"),
        ("fill_missing: {column: day, value: 2024-05-01T08:00:00}", "it is to be a date, as 2024-05-01"),
        ("fill_missing: {column: n, strategy: mean, fitted: {n: none}}", "it is to be a number"),
        ("map_values: {column: id, mapping: {NO: Norway}}", "no value of the column 'id' is False, which is mapped"),
        ("map_values: {column: n, mapping: {'1': one}}", "no value of the column 'n' is '1', which is mapped"),
        ("map_values: {column: n, mapping: {yes: one}}", "is True, which is mapped; it is to be a number"),
        ("map_values: {column: day, mapping: {soon: x}}", "it is to be a date"),
        ("map_values: {column: id, mapping: {a: NO}}", "would hold true and false beside text"),
        ("one_hot_encode: {column: n, categories: {n: [1, two]}}", "no value of the column 'n' is 'two', which is"),
        ("ordinal_encode: {column: id, fitted: {id: [1]}}", "is 1, which is a category; it is to be text (put quotes"),
        ("ordinal_encode: {column: day, fitted: {day: [soon]}}", "which is a category; it is to be a date"),
        ("rename: {columns: {no: number}}", "columns: a name is text, and YAML reads this one as False: put quotes"),
    ],
)
def test_a_value_of_another_kind_than_its_column_is_refused(tmp_path: Path, step: str, fault: str) -> None:
    said = fault_of(tmp_path, f"preprocess:\n  - clean_column_names\n  - {step}")
    assert said.startswith("contract.yaml:6: preprocess: ")
    assert fault in said


def test_columns_that_a_file_may_bring_along_may_be_all_that_is_left(tmp_path: Path) -> None:
    text = "dataset: orders\ncolumns: {id: string}\npreprocess:\n  - drop_columns: {columns: [id]}\n"
    load_contract(write_contract(tmp_path, text))


def test_what_a_step_raises_that_nobody_thought_of_is_a_fault_of_this_contract_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(step: Select, frame: pd.DataFrame) -> pd.DataFrame:
        del step, frame
        raise KeyError("surprise")

    monkeypatch.setattr(Select, "apply", broken)
    said = fault_of(tmp_path, "preprocess:\n  - select: {columns: [n]}")
    assert said == (
        "contract.yaml:5: preprocess: step select cannot be done with these arguments: KeyError: 'surprise'"
    )


def test_a_column_of_the_name_under_which_rows_are_numbered_is_refused(tmp_path: Path) -> None:
    folder = write_contract(tmp_path, f"dataset: orders\ncolumns:\n  {ROW_NUMBER}: integer\n")
    with pytest.raises(ContractInvalid, match=f"3: columns: Sluice numbers a file's rows under {ROW_NUMBER}"):
        load_contract(folder)


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("%d.%m.%Q", "%Q, which is no code"),
        ("100%", "ends in a %"),
        ("%d.%m.%d", "%d twice"),
        ("%x %d", "%d twice"),
        ("%z %Z", "the zone can be read by one of them"),
        ("%G-%V", "with a weekday they are a day"),
        ("%Y-%W", "with year and weekday they are a day"),
        ("%W %u %x", "by the format '%W %u %x' nothing can be read"),
    ],
)
def test_a_format_by_which_no_time_can_be_read_is_refused(tmp_path: Path, written: str, fault: str) -> None:
    folder = write_contract(tmp_path, f"dataset: orders\ncolumns:\n  at: {{type: timestamp, format: '{written}'}}\n")
    with pytest.raises(ContractInvalid, match=r"contract\.yaml:3: ") as caught:
        load_contract(folder)
    assert fault in str(caught.value)


@pytest.mark.parametrize("code", sorted(map(chr, range(33, 127))))
def test_the_codes_that_a_contract_may_use_are_those_that_pandas_reads(code: str) -> None:
    rest = {"G": "-%V-%u", "V": "-%G-%u", "U": "-%Y-%a", "W": "-%Y-%a"}.get(code, "")
    try:
        pd.to_datetime(pd.Series(["x"]), format=f"%{code}{rest}", errors="coerce")
    except ValueError:
        assert format_fault(f"%{code}{rest}")
    else:
        assert format_fault(f"%{code}{rest}") is None


def test_steps_see_the_columns_as_earlier_steps_leave_them(tmp_path: Path) -> None:
    steps = "preprocess:\n  - rename: {columns: {n: amount}}\n  - cast: {column: id, type: number}\n"
    sound = steps + "  - standardize: {columns: [amount, id]}\noutput: {partition_by: [day(day)]}\n"
    load_contract(write_contract(tmp_path, f"dataset: orders\n{COLUMNS}{sound}"))
    assert "no column 'n'" in fault_of(tmp_path, f"{steps}  - clip: {{column: n, lower: 0}}")
    assert fault_of(tmp_path, f"{steps}output: {{partition_by: n}}").startswith("contract.yaml:7: output: ")


def test_a_column_that_a_file_may_bring_along_is_not_missed(tmp_path: Path) -> None:
    text = "dataset: orders\ncolumns: {id: string}\npreprocess:\n  - fill_missing: {column: discount, value: 0}\n"
    load_contract(write_contract(tmp_path, text))


def test_a_function_of_ones_own_is_called_with_parameters_that_it_has(tmp_path: Path) -> None:
    steps = "def scale(frame, factor, *, by=1):\n    return frame\n"
    told = fault_of(tmp_path, "preprocess:\n  - steps.scale: {facto: 2}", steps__py=steps)
    assert "contract.yaml:5: preprocess: steps.scale has no parameter 'facto'; did you mean 'factor'?" in told
    told = fault_of(tmp_path, "preprocess:\n  - steps.scale: {by: 2}", steps__py=steps)
    assert "needs the argument 'factor'" in told


@pytest.mark.parametrize(
    ("expectation", "fault"),
    [
        ("expect_column_values_to_be_between: {column: id, min_value: 1}", "needs numbers, dates or timestamps"),
        ("expect_column_values_to_be_between: {column: n, min_value: 2024-01-01}", "it is a number"),
        ("expect_column_values_to_be_between: {column: day, min_value: 1}", "it is a date, as 2024-05-01"),
        ("expect_column_values_to_not_be_in_set: {column: day, value_set: [2024-W18]}", "it is a date, as 2024-05-01"),
        ("expect_column_mean_to_be_between: {column: day, min_value: 1}", "this needs numbers"),
        ("expect_column_values_to_be_in_set: {column: id, value_set: [1, 2]}", "put quotes around it"),
        ("expect_column_values_to_be_in_set: {column: n, value_set: ['1']}", "it is a number"),
        ("expect_column_values_to_match_like_pattern: {column: id, like_pattern: a%}", "match_regex"),
        ("expect_column_values_to_match_regex_list: {column: id, regex_list: a}", "a list with at least one"),
        ("expect_compound_columns_to_be_unique: {column_list: [id]}", "at least two different columns"),
        ("expect_compound_columns_to_be_unique: {column_list: 5}", "a list with at least one entry"),
        ("expect_table_row_count_to_equal: {value: many}", "a whole number"),
        ("expect_table_row_count_to_be_between: {max_value: -1}", "nothing could pass"),
        ("expect_column_proportion_of_unique_values_to_be_between: {column: n, min_value: 90}", "nothing could pass"),
        (
            "expect_column_values_to_not_be_null: {column: n, row_condition: 'ok ==', condition_parser: pandas}",
            "cannot be read",
        ),
        (
            "expect_column_proportion_of_unique_values_to_be_between: {column: n, min_value: 1, strict_min: true}",
            "nothing is greater: nothing could pass",
        ),
        (
            "expect_column_value_lengths_to_be_between: {column: id, max_value: 0, strict_max: true}",
            "nothing is less than 0: nothing could pass",
        ),
        (
            "expect_column_values_to_not_be_null: {column: n, row_condition: 'okk == True', condition_parser: pandas}",
            "its row_condition reads 'okk', which is not among the contract's columns; did you mean 'ok'?",
        ),
        (
            "expect_column_values_to_not_be_null: {column: n, row_condition: 'col(\"dy\").notNull()'}",
            "did you mean 'day'?",
        ),
        (
            "expect_column_quantile_values_to_be_between:"
            " {column: n, quantile_ranges: {quantiles: [0.5], value_ranges: [[9, 1]]}}",
            "[least, greatest]",
        ),
    ],
)
def test_an_expectation_that_no_file_could_meet_is_refused(tmp_path: Path, expectation: str, fault: str) -> None:
    said = fault_of(tmp_path, f"expectations:\n  - expect_column_to_exist: {{column: id}}\n  - {expectation}")
    assert said.startswith("contract.yaml:6: ")
    assert fault in said


@pytest.mark.parametrize(
    "condition",
    [
        "id == 'a' and ok",
        "`id` == 'a'",
        "id.str.startswith('a')",
        "col(\"id\") == 'a'",
        "abs(n) > 1",
        "n in [1, 2]",
        "index > 2",
    ],
)
def test_a_condition_on_columns_of_the_contract_is_taken(tmp_path: Path, condition: str) -> None:
    written = json.dumps({"column": "n", "row_condition": condition, "condition_parser": "pandas"})
    text = f"dataset: orders\n{COLUMNS}expectations:\n  - expect_column_values_to_not_be_null: {written}\n"
    load_contract(write_contract(tmp_path, text))


def test_all_faults_of_a_contract_are_told_at_once(tmp_path: Path) -> None:
    text = (
        "expectations:\n  - expect_column_mean_to_be_between: {column: id, min_value: 1}\n"
        "preprocess:\n  - fill_missing: {colum: n}\n  - cast: {column: n, type: int}"
    )
    assert [line.split(": ")[0] for line in fault_of(tmp_path, text).splitlines()] == [
        "contract.yaml:5",
        "contract.yaml:7",
        "contract.yaml:8",
    ]


def test_a_contract_that_is_changed_for_a_run_is_checked_as_well() -> None:
    contract = load_contracts(SHIPPED).named("orders")
    with pytest.raises(ContractInvalid, match=r"contract: preprocess\.0: fill_missing: it has no argument 'colum'"):
        overridden(contract, {"preprocess": [{"fill_missing": {"colum": "x", "value": 0}}]})


def test_contracts_are_loaded_without_importing_great_expectations() -> None:
    code = (
        "import sys; from pathlib import Path; from flows.refinery.contracts import load_contracts;"
        f"load_contracts(Path({str(SHIPPED)!r}));"
        "print(sorted({'great_expectations', 'prefect', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "condition",
    [
        5,
        {"type": "comparison", "column": {"name": "a"}, "operator": "~", "parameter": 1},
        {"type": "comparison", "column": "a", "operator": "==", "parameter": 1},
        {"type": "comparison", "column": {"name": "a"}, "operator": "IN", "parameter": "x"},
        {"type": "and", "conditions": []},
        {"type": "nullity", "column": {"name": "a"}},
        {"type": "pass_through", "pass_through_filter": "a =="},
        {"type": "other"},
    ],
)
def test_a_mapping_that_is_no_condition_of_gx_is_refused(condition: Any) -> None:
    arguments = {"column": "a", "row_condition": condition}
    (fault,) = faults_of("expect_column_values_to_not_be_null", arguments)
    assert "as GX writes it into a suite" in fault


# --- held against GX itself -------------------------------------------------------------------------------------------

SOUND: dict[str, Any] = {
    "column": "a",
    "column_A": "a",
    "column_B": "b",
    "column_list": ["a", "b"],
    "column_set": ["a"],
    "value_set": ["x"],
    "value_pairs_set": [["x", "y"]],
    "regex": "x",
    "regex_list": ["x"],
    "type_": "str",
    "type_list": ["str"],
    "value": 3,
    "sum_total": 3,
    "threshold": 3,
    "double_sided": True,
    "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]},
    "json_schema": {"type": "object"},
    "strftime_format": "%Y",
    "partition_object": {"values": ["a"], "weights": [1.0]},
    "min_value": 0,
    "max_value": 0.5,
}
ODD = [5, -1, 1.5, "x", True, [], [1], {"a": 1}]
USUAL = ("min_value", "max_value", "regex", "column_list", "column_set", "partition_object", "type_list")


def sound_arguments(name: str) -> dict[str, Any]:
    taken = vocabulary()[name].arguments
    return {key: value for key, value in SOUND.items() if key in taken and (taken[key].required or key in USUAL)}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_great_expectations_refuses_no_argument_that_a_contract_may_have(name: str) -> None:
    sound = sound_arguments(name)
    assert list(faults_of(name, sound)) == []
    for argument in vocabulary()[name].arguments:
        for value in ODD:
            given = {**sound, argument: value}
            if not list(faults_of(name, given)):
                gx().ExpectationConfiguration(type=name, kwargs=given).to_domain_obj()


SAMPLES = {"integer": "1", "number": "1.5", "boolean": "true", "string": "a", "json": '{""a"": 1}'}
SAMPLES.update({"timestamp": "2024-01-01", "date": "2024-01-01", "time": "08:00:00"})
NO_SUCH_COLUMN_TYPE = ("expect_column_kl_divergence_to_be_less_than",)  # its partition fits one column's values only
JUDGES_VALUES = sorted(
    name for name, method in METHODS.items() if method is not Method.STRUCTURE and name not in NO_SUCH_COLUMN_TYPE
)


@pytest.mark.parametrize("kind", SAMPLES)
def test_great_expectations_gives_a_verdict_on_every_column_that_a_contract_lets_it_judge(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "upload").write_text("a,b\n" + f'"{SAMPLES[kind]}","{SAMPLES[kind]}"\n' * 3)
    expectations = []
    for name in JUDGES_VALUES:
        for bounds in ({"min_value": 0, "max_value": 0.5}, {"min_value": "2024-01-01"}):
            arguments = sound_arguments(name)
            if "min_value" in arguments:
                arguments = {key: value for key, value in arguments.items() if key not in ("min_value", "max_value")}
                arguments |= bounds
            if list(faults_of(name, arguments)):
                continue
            contract = a_contract(columns={"a": kind, "b": kind}, expectations=[{name: arguments}])
            if not list(inconsistencies(contract)):
                expectations.append({name: arguments})
    assert len(expectations) > 15
    contract = a_contract(columns={"a": kind, "b": kind}, expectations=expectations)
    judge_file(tmp_path / "upload", contract, tmp_path)


def test_a_suite_that_gx_wrote_judges_the_rows_that_its_conditions_leave(tmp_path: Path) -> None:
    gx()
    import great_expectations as installed
    from great_expectations.expectations.row_conditions import Column

    a, n = Column("a"), Column("n")
    conditions = [a == "DE", (a.is_in(["DE", "FR"]) & (n > 1)) | n.is_null(), n.is_not_null(), 'a == "FR"']
    not_null = installed.expectations.ExpectColumnValuesToNotBeNull
    parsers = [{}, {}, {}, {"condition_parser": "pandas"}]
    suite = installed.ExpectationSuite(
        name="s",
        expectations=[
            not_null(column="n", row_condition=condition, **parser)
            for condition, parser in zip(conditions, parsers, strict=True)
        ],
    )
    folder = write_contract(
        tmp_path,
        "dataset: orders\ncolumns: {a: string, n: integer}\nunknown_columns: freeze\nsuite: suite.json\n",
        suite__json=json.dumps(suite.to_json_dict()),
    )
    (tmp_path / "upload.csv").write_text("a,n\nDE,1\nDE,\nFR,2\nFR,3\nUS,1\n")
    validated = judge_file(tmp_path / "upload.csv", load_contract(folder), tmp_path)
    assert not validated.rejected
    assert [check.rows_failing for check in validated.checks if check.rule.startswith("expect_")] == [1, 1, 0, 0]
