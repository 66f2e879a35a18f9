"""Invalid contracts, each with the line and field of its error and the words that the message must contain.

`messages()` yields the message for each contract. test_wrong_contracts_snapshot.py compares them with a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.refinery.check_contract import check_contract
from flows.refinery.contract.loading import ContractInvalid, load_contract

_COLUMNS = "dataset: orders\ncolumns: {id: string, n: integer, day: date, ok: boolean}\nunknown_columns: freeze\n"


@dataclass(frozen=True)
class WrongContract:
    """A contract that must be rejected.

    Attributes:
        text: the content of contract.yaml, which is in a folder named orders.
        line: the line number of the error.
        field: the field that the message must name.
        names: strings that the message must contain, such as a value, a column or the name that was probably meant.
    """

    text: str
    line: int
    field: str
    names: tuple[str, ...] = ()


def write_contract(root: Path, text: str, dataset: str = "orders", **others: str) -> Path:
    """Write `root`/`dataset`/contract.yaml and `others`, whose names have __ in place of the dot; return the folder."""
    folder = root / dataset
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "contract.yaml").write_text(text, encoding="utf-8")
    for name, content in others.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return folder


def faults_of(root: Path, text: str, **others: str) -> list[str]:
    """Load and check an invalid contract; return the lines of the error, with paths shortened to the file's name."""
    folder = write_contract(root, text, **others)
    with pytest.raises(ContractInvalid) as caught:
        check_contract(load_contract(folder))
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def messages(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (contract, error message) for each invalid contract."""
    for position, wrong in enumerate([*SHAPES, *EXPECTATIONS, *STEPS]):
        yield wrong.text, "\n".join(faults_of(root / str(position), wrong.text))


def _shape(rest: str, line: int, field: str, *names: str) -> WrongContract:
    return WrongContract(f"dataset: orders\n{rest}\n", line, field, names)


def _expectation(written: str, *names: str) -> WrongContract:
    """Return a contract with four columns, a valid expectation and an invalid one."""
    text = f"{_COLUMNS}expectations:\n  - expect_column_to_exist: {{column: id}}\n  - {written}\n"
    return WrongContract(text, 6, "expectations", names)


def _step(written: str, *names: str) -> WrongContract:
    """Return a contract with four columns, a valid step and an invalid one after it."""
    return WrongContract(f"{_COLUMNS}preprocess:\n  - clean_column_names\n  - {written}\n", 6, "preprocess", names)


def _format(written: str, *names: str) -> WrongContract:
    return _shape(f"columns:\n  at: {{type: timestamp, format: '{written}'}}", 3, "columns", *names)


SHAPES: tuple[WrongContract, ...] = (
    _shape("expectation: []", 2, "expectation", "'expectations'"),
    _shape("columns:\n  a: {type: strin}", 3, "columns.a.type", "'string'"),
    _shape("columns:\n  a: {typ: string}", 3, "columns.a.typ", "'type'"),
    _shape("bad_rows:\n  policy: quarantine\n  max_fracton: 1", 4, "bad_rows.max_fracton", "'max_fraction'"),
    _shape(
        "expectations:\n  - expect_column_values_to_be_unique: {column: a, keep: newest}",
        3,
        "expectations.0",
        "'newest'",
    ),
    _shape("expectations:\n  - expect_column_values_to_be_null: {column: a, keep: first}", 3, "expectations.0", "keep"),
    _shape("bad_rows: {max_fraction: 1.5}", 2, "bad_rows.max_fraction", "1.5"),
    _shape("bad_rows: {policy: reject_file, max_count: 3}", 2, "bad_rows", "reject_file", "max_count"),
    _shape("unknown_columns: ignore", 2, "unknown_columns", "evolve", "freeze", "quarantine"),
    _shape("unknown_columns: freeze", 2, "unknown_columns"),
    _shape("format: cvs", 2, "format.type", "'csv'"),
    _shape("format: {type: parquet, delimiter: ','}", 2, "format", "delimiter", "parquet"),
    _shape("format: {encoding: utf8mb4}", 2, "format.encoding", "'utf8mb4'"),
    _shape("format: {encoding: idna}", 2, "format.encoding", "'idna'"),
    _shape("format: {thousands: e}", 2, "format.thousands", "'e'"),
    _shape("columns:\n  a: {type: time, format: '%H:%M %z'}", 3, "columns.a", "'%H:%M %z'"),
    _shape("columns: {no: integer}", 2, "columns", "False"),
    _shape("columns: {2024: integer}", 2, "columns", "2024"),
    _shape("columns:\n  a: {type: integer, format: '%Y'}", 3, "columns.a", "integer"),
    _shape("columns:\n  a: {type: timestamp, timezone: Europe/Belin}", 3, "columns.a.timezone", "'Europe/Berlin'"),
    _shape("preprocess:\n  - clip: {}\n  - drop_duplicate", 4, "preprocess.1", "'drop_duplicates'"),
    _shape("preprocess:\n  - {clip: {}, cast: {}}", 3, "preprocess.0", "clip", "cast"),
    _shape("expectations:\n  - {expect_a: {column: a}, expect_b: {value: 1}}", 3, "expectations.0", "expect_a"),
    _shape("expectations:\n  - expect_a: {severity: fatal}", 3, "expectations.0.severity", "critical"),
    _shape("preprocess: [steps.own]", 2, "preprocess", "steps.py"),
    _shape("suite: absent.json", 2, "suite", "'absent.json'"),
    _shape("suite: ../other/suite.json", 2, "suite", "'../other/suite.json'"),
    WrongContract("dataset: other\n", 1, "dataset", ("'other'", "'orders'")),
    WrongContract("columns: {}\n", 1, "dataset"),
    WrongContract("- a\n", 1, "a contract", ("dataset",)),
    WrongContract("dataset: orders\nformat: {delimiter: ','\n", 3, "not YAML"),
    WrongContract("dataset: orders\ndataset: orders\n", 2, "'dataset'"),
    WrongContract("a: &a [*a]\n", 1, "nested"),
    _shape("folder: /", 2, "folder"),
    _shape("output: {format: csv, compression: snappy}", 2, "output", "snappy"),
    _format("%d.%m.%Q", "%Q"),
    _format("100%", "100%"),
    _format("%d.%m.%d", "%d"),
    _format("%x %d", "%d"),
    _format("%z %Z", "%z", "%Z"),
    _format("%G-%V", "%G-%V"),
    _format("%Y-%W", "%Y-%W"),
    _format("%W %u %x", "%W %u %x"),
    _shape("columns:\n  _sluice_row_number: integer", 3, "columns", "_sluice_row_number"),
)
"""Contracts whose errors are found without Great Expectations and, except for some time formats, without pandas."""

_BETWEEN = "expect_column_values_to_be_between"
_NOT_NULL = "expect_column_values_to_not_be_null"
_IN_SET = "expect_column_values_to_be_in_set"
_UNIQUE_SHARE = "expect_column_proportion_of_unique_values_to_be_between"
_REGEX_LIST = "expect_column_values_to_match_regex_list"
_QUANTILES = "expect_column_quantile_values_to_be_between"

EXPECTATIONS: tuple[WrongContract, ...] = (
    _expectation("expect_column_values_to_be_betwen: {column: n, min_value: 1}", f"'{_BETWEEN}'"),
    _expectation("unexpected_rows_expectation: {unexpected_rows_query: select 1}", "SQL"),
    _expectation("expect_column_values_to_match_like_pattern: {column: id, like_pattern: a%}", "match_regex"),
    _expectation(f"{_NOT_NULL}: {{column: m}}", "'m'"),
    _expectation(f"{_NOT_NULL}: {{column: dya}}", "'dya'", "'day'"),
    # Great Expectations rejects these.
    _expectation(f"{_BETWEEN}: {{colum: n, min_value: 1}}", "'colum'", "'column'"),
    _expectation(f"{_BETWEEN}: {{min_value: 1}}", "'column'"),
    _expectation(f"{_BETWEEN}: {{column: n}}", "min_value", "max_value"),
    _expectation(f"{_BETWEEN}: {{column: n, min_value: [1]}}", "min_value", "[1]"),
    _expectation(f"{_BETWEEN}: {{column: n, min_value: 1, max_value: b}}", "max_value", "'b'"),
    _expectation(f"{_REGEX_LIST}: {{column: id, regex_list: ['a'], match_on: some}}", "match_on", "'some'"),
    _expectation(f"{_REGEX_LIST}: {{column: id, regex_list: a}}", "regex_list", "'a'"),
    _expectation(f"{_NOT_NULL}: {{column: n, mostly: 90}}", "mostly", "90"),
    _expectation(f"{_NOT_NULL}: {{column: 3}}", "column", "3"),
    _expectation("expect_compound_columns_to_be_unique: {column_list: [id]}", "column_list"),
    _expectation("expect_compound_columns_to_be_unique: {column_list: 5}", "column_list"),
    _expectation("expect_table_row_count_to_equal: {value: many}", "value", "'many'"),
    _expectation(f"{_NOT_NULL}: {{column: n, meta: {{a: 1}}}}", "'meta'"),
    # Great Expectations would silently change these.
    _expectation(f"{_NOT_NULL}: {{column: n, mostly: yes}}", "mostly", "True"),
    _expectation("expect_table_row_count_to_equal: {value: 1.5}", "value", "1.5"),
    _expectation("expect_column_values_to_be_increasing: {column: n, strictly: 1}", "strictly", "1"),
    _expectation(f"{_REGEX_LIST}: {{column: id, regex_list: [1]}}", "regex_list"),
    _expectation(f"{_BETWEEN}: {{column: n, min_value: '1'}}", "min_value", "'1'"),
    _expectation(f"{_NOT_NULL}: {{column: n, row_condition: 5}}", "row_condition", "5"),
    # Great Expectations accepts these, but no file could meet them.
    _expectation(f"{_BETWEEN}: {{column: n, min_value: 9, max_value: 1}}", "9", "1"),
    _expectation(f"{_BETWEEN}: {{column: n, min_value: 1, max_value: 1, strict_min: true}}", "1"),
    _expectation(f"{_BETWEEN}: {{column: day, min_value: 2024-05-01, max_value: '2024-01-01'}}", "2024"),
    _expectation("expect_column_values_to_match_regex: {column: id, regex: '(['}", "'(['"),
    _expectation(f"{_REGEX_LIST}: {{column: id, regex_list: ['a', '*']}}", "'*'"),
    _expectation(f"{_IN_SET}: {{column: id, value_set: []}}", "value_set"),
    _expectation("expect_compound_columns_to_be_unique: {column_list: [id, id]}", "column_list"),
    _expectation("expect_column_value_lengths_to_equal: {column: id, value: -1}", "value", "-1"),
    _expectation("expect_table_row_count_to_be_between: {max_value: -1}", "max_value", "-1"),
    _expectation("expect_column_stdev_to_be_between: {column: n, max_value: -1}", "max_value", "-1"),
    _expectation(f"{_UNIQUE_SHARE}: {{column: n, min_value: 90}}", "min_value", "90"),
    _expectation(f"{_UNIQUE_SHARE}: {{column: n, min_value: 1, strict_min: true}}", "min_value", "1"),
    _expectation(
        "expect_column_value_lengths_to_be_between: {column: id, max_value: 0, strict_max: true}", "max_value", "0"
    ),
    _expectation(
        f"{_QUANTILES}: {{column: n, quantile_ranges: {{quantiles: [0.5], value_ranges: [[9, 1]]}}}}", "[9, 1]"
    ),
    _expectation(f"{_QUANTILES}: {{column: n, quantile_ranges: {{quantiles: [0.5], value_ranges: []}}}}"),
    _expectation(f"{_QUANTILES}: {{column: n, quantile_ranges: {{quantiles: [5], value_ranges: [[1, 9]]}}}}"),
    # These have invalid row conditions.
    _expectation(f"{_NOT_NULL}: {{column: n, row_condition: 'ok ==', condition_parser: pandas}}", "'ok =='"),
    _expectation(
        f"{_NOT_NULL}: {{column: n, row_condition: 'okk == True', condition_parser: pandas}}", "'okk'", "'ok'"
    ),
    _expectation(f"{_NOT_NULL}: {{column: n, row_condition: 'col(\"dy\").notNull()'}}", "'dy'", "'day'"),
    *(
        _expectation(f"{_NOT_NULL}: {{column: n, row_condition: {condition}}}", "row_condition")
        for condition in (
            "{type: comparison, column: {name: n}, operator: '~', parameter: 1}",
            "{type: comparison, column: n, operator: '==', parameter: 1}",
            "{type: comparison, column: {name: n}, operator: IN, parameter: x}",
            "{type: and, conditions: []}",
            "{type: nullity, column: {name: n}}",
            "{type: pass_through, pass_through_filter: 'n =='}",
            "{type: other}",
        )
    ),
    # These have values that cannot be compared with the column's type.
    _expectation("expect_multicolumn_sum_to_equal: {column_list: [id, n], sum_total: 3}", "'id'", "string"),
    _expectation("expect_column_value_lengths_to_equal: {column: id, value: 1.5}", "value", "1.5"),
    _expectation(f"{_BETWEEN}: {{column: id, min_value: 1}}", "'id'", "string"),
    _expectation(f"{_BETWEEN}: {{column: n, min_value: 2024-01-01}}", "'n'", "integer"),
    _expectation(f"{_BETWEEN}: {{column: day, min_value: 1}}", "'day'", "date"),
    _expectation("expect_column_mean_to_be_between: {column: day, min_value: 1}", "'day'", "date"),
    _expectation("expect_column_values_to_not_be_in_set: {column: day, value_set: [2024-W18]}", "'2024-W18'", "date"),
    _expectation(f"{_IN_SET}: {{column: id, value_set: [1, 2]}}", "1", "string"),
    _expectation(f"{_IN_SET}: {{column: n, value_set: ['1']}}", "'1'", "integer"),
)

STEPS: tuple[WrongContract, ...] = (
    _step("fill_missing: {colum: n, value: 0}", "'colum'", "'column'"),
    _step("fill_missing: {column: n}", "value", "strategy"),
    _step("fill_missing: {column: n, strategy: average}", "'mean'", "'median'", "'mode'"),
    _step("fill_missing: {column: n, value: none}", "'none'", "'n'"),
    _step("fill_missing: {column: m, value: 0}", "'m'", "'id'", "'n'"),
    _step("rename: {}", "'columns'"),
    _step("clip: {column: n, lower: 5, upper: 1}", "5", "1"),
    _step("clip: {column: day, lower: 5}", "'day'"),
    _step("standardize: {column: id}", "'id'"),
    _step("cast: {column: n, type: int}", "'integer'", "'int'"),
    _step("train_test_split: {key: idd}", "'id'"),
    _step("train_test_split: {key: id, test_size: 20}", "test_size"),
    _step("standardize: {column: n, fitted: {n: 5}}", "fitted", "'n'", "mean", "std"),
    _step("standardize: {column: n, fitted: {n: {mean: 1}}}", "mean", "std"),
    _step("standardize: {column: n, fitted: {n: {mean: a, std: 1}}}", "mean", "std"),
    _step("min_max_scale: {column: n, fitted: {n: {mean: 1, std: 2}}}", "min", "max"),
    _step("one_hot_encode: {column: id, fitted: {id: 5}}", "'id'", "5"),
    _step("ordinal_encode: {column: id, categories: {id: [[1]]}}", "'id'", "[[1]]"),
    _step("fill_missing: {column: n, strategy: mean, fitted: {n: [1]}}", "'n'", "[1]"),
    _step("map_values: {column: id, mapping: {a: [1, 2]}}", "'a'", "[1, 2]"),
    _step("select: {columns: [n, n]}", "'n'"),
    _step("drop_duplicates: {subset: [n, n]}", "'n'"),
    _step("drop_columns: {columns: [id, n, day, ok]}", "drop_columns"),
    _step("fill_missing: {column: n, value: 99999999999999999999}", "64 bits", "'n'"),
    _step("clip: {column: n, lower: 1e+30}", "64 bits", "'n'"),
    _step("parse_dates: {column: id, timezone: Europe/Berln}", "'Europe/Berlin'"),
    _step("parse_dates: {column: id, format: '%Q'}", "%Q"),
    _step("parse_dates: {column: id, format: dd.mm.yyyy}", "'dd.mm.yyyy'"),
    _step("fill_missing: {column: id, value: NO}", "'id'", "text"),
    _step("fill_missing: {column: id, value: 5}", "'id'", "text"),
    _step("fill_missing: {column: n, value: true}", "number"),
    _step("fill_missing: {column: n, value: .nan}", "number"),
    _step("fill_missing: {column: ok, value: 1}", "'ok'", "true or false"),
    _step("fill_missing: {column: day, value: 0}", "'day'", "date"),
    _step("fill_missing: {column: day, value: 2024-05-01T08:00:00}", "'day'", "date"),
    _step("fill_missing: {column: n, strategy: mean, fitted: {n: none}}", "number"),
    _step("map_values: {column: id, mapping: {NO: Norway}}", "'id'", "False"),
    _step("map_values: {column: n, mapping: {'1': one}}", "'n'", "'1'"),
    _step("map_values: {column: n, mapping: {yes: one}}", "True", "number"),
    _step("map_values: {column: day, mapping: {soon: x}}", "'soon'", "date"),
    _step("map_values: {column: id, mapping: {a: NO}}", "true and false"),
    _step("one_hot_encode: {column: n, categories: {n: [1, two]}}", "'n'", "'two'"),
    _step("ordinal_encode: {column: id, fitted: {id: [1]}}", "1", "text"),
    _step("ordinal_encode: {column: day, fitted: {day: [soon]}}", "'soon'", "date"),
    _step("rename: {columns: {no: number}}", "False"),
)
