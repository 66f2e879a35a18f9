"""Contracts: what they say, which fall on a key, and what is refused with line, field and fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.refinery.contract.loading import ContractInvalid, Contracts, load_contract
from flows.refinery.contract.model import Contract, glob_to_regex
from tests.unit.flows.refinery.tables import a_contract

SHIPPED = Path(__file__).parents[5] / "flows" / "contracts"


def write_contract(root: Path, text: str, dataset: str = "orders", **others: str) -> Path:
    folder = root / dataset
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "contract.yaml").write_text(text, encoding="utf-8")
    for name, content in others.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return folder


def fault_of(root: Path, text: str, **others: str) -> str:
    folder = write_contract(root, text, **others)
    with pytest.raises(ContractInvalid) as caught:
        load_contract(folder)
    return str(caught.value).replace(str(folder) + "/", "")


def test_the_shipped_contracts_load_and_cover_their_keys() -> None:
    contracts = Contracts.load(SHIPPED)
    assert {contract.dataset for contract in contracts} >= {"default", "orders", "penguins"}
    assert contracts.for_key("incoming/orders/2026/11/orders.csv").dataset == "orders"
    assert contracts.for_key("incoming/penguins/p.csv.gz").dataset == "penguins"
    assert contracts.for_key("incoming/orders.csv").is_default
    assert contracts.for_key("incoming/never heard of/é.csv").is_default


def test_everything_that_a_contract_can_say_is_read(tmp_path: Path) -> None:
    folder = write_contract(
        tmp_path,
        r"""
dataset: orders
description: all of it
source: [incoming/orders/*.csv, incoming/more/**]
format: {type: csv, delimiter: ";", quote: "'", encoding: latin-1, decimal: ",", thousands: ".", missing_values: ["-"]}
columns:
  id: string
  price: {type: number, nullable: false, required: false, missing_values: [none]}
  day: {type: date, format: '%d.%m.%Y', description: the day}
unknown_columns: quarantine
missing_columns: evolve
expectations:
  - expect_column_values_to_be_between: {column: price, min_value: 1, max_value: 9, mostly: 0.9, severity: critical}
  - expect_column_values_to_not_be_null: {column: id, row_condition: 'price > 3', condition_parser: pandas}
suite: suite.json
bad_rows: {policy: quarantine, max_fraction: 0.05, max_count: 10}
on_reupload: append
preprocess:
  - clean_column_names
  - fill_missing: {column: price, value: 0}
  - steps.own: {factor: 2}
output: {format: csv, compression: gzip, partition_by: day}
""",
        suite__json=json.dumps(
            {
                "name": "s",
                "expectations": [
                    {
                        "type": "expect_column_to_exist",
                        "kwargs": {"column": "id", "batch_id": "x"},
                        "severity": "info",
                    }
                ],
            }
        ),
        steps__py="def own(frame, factor):\n    return frame\n",
    )
    contract = load_contract(folder)
    assert contract.sources == ("incoming/orders/*.csv", "incoming/more/**")
    assert contract.format.decimal == ","
    assert contract.columns["id"].type == "string"
    assert contract.columns["price"].missing_values == ("none",)
    first, second, third = contract.expectations
    assert (first.severity, first.mostly, first.level, first.columns) == ("critical", 0.9, "row", ["price"])
    assert "severity" not in first.arguments
    assert second.arguments["row_condition"] == "price > 3"
    assert (third.name, third.arguments, third.severity, third.level) == (
        "expect_column_to_exist",
        {"column": "id"},
        "info",
        "table",
    )
    assert [(step.name, step.arguments, step.is_own) for step in contract.preprocess] == [
        ("clean_column_names", {}, False),
        ("fill_missing", {"column": "price", "value": 0}, False),
        ("steps.own", {"factor": 2}, True),
    ]
    assert contract.output.partition_by == ("day",)
    assert contract.folder == folder


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("dataset: orders\nexpectation: []\n", 2, ["expectation", "did you mean 'expectations'"]),
        ("dataset: orders\ncolumns:\n  a: {type: strin}\n", 3, ["columns.a.type", "did you mean 'string'"]),
        ("dataset: orders\ncolumns:\n  a: {typ: string}\n", 3, ["did you mean 'type'"]),
        ("dataset: orders\nbad_rows:\n  policy: quarantine\n  max_fracton: 1\n", 4, ["did you mean 'max_fraction'"]),
        ("dataset: orders\nbad_rows: {max_fraction: 1.5}\n", 2, ["bad_rows.max_fraction", "1.5"]),
        ("dataset: orders\nbad_rows: {policy: reject_file, max_count: 3}\n", 2, ["allows no bad row"]),
        ("dataset: orders\nunknown_columns: ignore\n", 2, ["possible: evolve, freeze, quarantine"]),
        ("dataset: orders\nunknown_columns: freeze\n", 2, ["no columns are written"]),
        ("dataset: orders\nformat: cvs\n", 2, ["did you mean 'csv'"]),
        ("dataset: orders\nformat: {type: parquet, delimiter: ','}\n", 2, ["delimiter means nothing for parquet"]),
        ("dataset: orders\nformat: {encoding: utf8mb4}\n", 2, ["no encoding that Python knows"]),
        ("dataset: orders\nformat: {encoding: idna}\n", 2, ["no encoding that Python knows"]),
        ("dataset: orders\nformat: {thousands: e}\n", 2, ["cannot stand between thousands"]),
        ("dataset: orders\ncolumns:\n  a: {type: time, format: '%H:%M %z'}\n", 3, ["which a time cannot keep"]),
        ("dataset: orders\nformat: {delimiter: ','\n", 3, ["not YAML"]),
        ("dataset: orders\ncolumns: {no: integer}\n", 2, ["as False: put quotes around it", "yes, no, on and off"]),
        ("dataset: orders\ncolumns: {2024: integer}\n", 2, ["as 2024: put quotes around it"]),
        ("dataset: orders\ndataset: orders\n", 2, ["written twice"]),
        ("dataset: orders\ncolumns:\n  a: {type: integer, format: '%Y'}\n", 3, ["format is for timestamps"]),
        ("dataset: orders\ncolumns:\n  a: {type: timestamp, timezone: Europe/Belin}\n", 3, ["'Europe/Berlin'"]),
        ("dataset: orders\npreprocess:\n  - clip: {}\n  - drop_duplicate\n", 4, ["did you mean 'drop_duplicates'"]),
        ("dataset: orders\npreprocess:\n  - {clip: {}, cast: {}}\n", 3, ["found 2 names"]),
        ("dataset: orders\npreprocess: [steps.own]\n", 2, ["no steps.py"]),
        ("dataset: orders\nsuite: absent.json\n", 2, ["no file 'absent.json'"]),
        ("dataset: orders\nsuite: ../other/suite.json\n", 2, ["outside"]),
        ("dataset: other\n", 1, ["'other' in the folder 'orders'"]),
        ("- a\n", 1, ["a contract is a mapping"]),
        ("columns: {}\n", 1, ["dataset", "needed"]),
        ("dataset: orders\nfolder: /\n", 2, ["not a field"]),
        ("dataset: orders\noutput: {format: csv, compression: snappy}\n", 2, ["snappy is for Parquet"]),
    ],
)
def test_a_wrong_contract_is_refused_with_line_and_fix(tmp_path: Path, text: str, line: int, parts: list[str]) -> None:
    fault = fault_of(tmp_path, text)
    assert fault.startswith(f"contract.yaml:{line}: ")
    for part in parts:
        assert part in fault


@pytest.mark.parametrize(
    ("expectation", "part"),
    [
        ("expect_column_values_to_be_betwen: {column: a, min_value: 1}", "did you mean 'expect_column_values_to_be_b"),
        ("expect_column_values_to_be_between: {column: a, min_value: 9, max_value: 1}", "nothing could pass"),
        ("expect_column_values_to_be_between: {column: a}", "min_value, max_value or both"),
        ("expect_column_values_to_be_between: {column: a, min_value: 1, max_value: 1, strict_min: true}", "strictly"),
        ("expect_column_values_to_be_between: {colum: a, min_value: 1}", "did you mean 'column'"),
        ("expect_column_values_to_be_between: {min_value: 1}", "needs the argument 'column'"),
        ("expect_column_values_to_be_between: {column: a, min_value: [1]}", "a number or a date"),
        ("expect_column_values_to_be_between: {column: a, min_value: 1, max_value: b}", "cannot be compared"),
        ("expect_column_values_to_match_regex: {column: a, regex: '(['}", "does not compile"),
        ("expect_column_values_to_match_regex_list: {column: a, regex_list: ['a', '*']}", "does not compile"),
        ("expect_column_values_to_match_regex_list: {column: a, regex_list: ['a'], match_on: some}", "all, any"),
        ("expect_column_values_to_not_be_null: {column: a, mostly: 90}", "between 0 and 1"),
        ("expect_column_values_to_not_be_null: {column: a, mostly: yes}", "it is a number"),
        ("expect_column_values_to_not_be_null: {column: 3}", "it is text"),
        ("expect_column_values_to_be_in_set: {column: a, value_set: []}", "at least one entry"),
        ("expect_column_values_to_not_be_null: {column: a, severity: fatal}", "critical"),
        ("unexpected_rows_expectation: {unexpected_rows_query: select 1}", "SQL engine"),
        ("{expect_column_to_exist: {column: a}, expect_table_row_count_to_equal: {value: 1}}", "found 2 names"),
    ],
)
def test_an_expectation_that_gx_could_not_judge_by_is_refused(tmp_path: Path, expectation: str, part: str) -> None:
    fault = fault_of(tmp_path, f"dataset: orders\nexpectations:\n  - {expectation}\n")
    assert fault.startswith("contract.yaml:3: ")
    assert part in fault


def test_an_expectation_on_a_column_that_cannot_be_there_is_refused(tmp_path: Path) -> None:
    text = (
        "dataset: orders\nunknown_columns: freeze\ncolumns: {quantity: integer}\n"
        "expectations:\n  - expect_column_values_to_not_be_null: {column: quantty}\n"
    )
    assert "did you mean 'quantity'" in fault_of(tmp_path, text)


def test_a_fault_in_a_suite_is_refused(tmp_path: Path) -> None:
    suite = json.dumps({"expectations": [{"expectation_type": "expect_nothing", "kwargs": {}}]})
    assert "no expectation" in fault_of(tmp_path, "dataset: orders\nsuite: suite.json\n", suite__json=suite)
    assert "not a GX suite" in fault_of(tmp_path, "dataset: orders\nsuite: suite.json\n", suite__json="[]")


def test_a_fault_in_a_suite_is_told_by_its_place_there(tmp_path: Path) -> None:
    entries = [
        {"type": name, "kwargs": {"column": "a"}} for name in ("expect_column_to_exist", "expect_column_to_exst")
    ]
    text = "dataset: orders\nsuite: suite.json\nexpectations:\n  - expect_column_to_exist: {column: a}\n"
    fault = fault_of(tmp_path, text, suite__json=json.dumps({"expectations": entries}))
    assert fault.startswith("suite.json: expectations[1]: ")
    assert "did you mean 'expect_column_to_exist'" in fault
    text += "columns: {b: string}\nunknown_columns: freeze\n"
    fault = fault_of(tmp_path, text, suite__json=json.dumps({"expectations": entries[:1]}))
    assert [line.split(": expectations: ")[0] for line in fault.splitlines()] == [
        "contract.yaml:4",
        "suite.json: expectations[0]",
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({}, "warning"),
        ({"severity": "critical"}, "warning"),
        ({"severity": "critical", "meta": {"critical": True}}, "critical"),
        ({"severity": "info"}, "info"),
    ],
)
def test_the_severity_that_gx_writes_unasked_rejects_no_file(
    tmp_path: Path, written: dict[str, Any], meant: str
) -> None:
    entry = {"type": "expect_column_to_exist", "kwargs": {"column": "a"}, **written}
    suite = json.dumps({"expectations": [entry]})
    folder = write_contract(tmp_path, "dataset: orders\nsuite: suite.json\n", suite__json=suite)
    assert load_contract(folder).expectations[0].severity == meant


def test_own_steps_are_looked_up_without_running_them(tmp_path: Path) -> None:
    steps = "raise SystemExit('executed')\ndef add_revenue(frame):\n    return frame\n"
    folder = write_contract(tmp_path, "dataset: orders\npreprocess: [steps.add_revenue]\n", steps__py=steps)
    assert load_contract(folder).preprocess[0].function == "add_revenue"
    fault = fault_of(tmp_path, "dataset: orders\npreprocess: [steps.add_revenu]\n", steps__py=steps)
    assert "did you mean 'add_revenue'" in fault
    assert "not Python" in fault_of(tmp_path, "dataset: orders\npreprocess: [steps.x]\n", steps__py="def x(:\n")


def test_all_faults_of_all_contracts_are_told_at_once(tmp_path: Path) -> None:
    write_contract(tmp_path, "dataset: a\nfoo: 1\nbar: 2\n", dataset="a")
    write_contract(tmp_path, "dataset: b\noutput: {format: x}\n", dataset="b")
    with pytest.raises(ContractInvalid) as caught:
        Contracts.load(tmp_path)
    assert len(str(caught.value).splitlines()) == 3


def test_without_a_default_contract_nothing_is_loaded(tmp_path: Path) -> None:
    write_contract(tmp_path, "dataset: orders\n")
    with pytest.raises(ContractInvalid, match="default"):
        Contracts.load(tmp_path)


def test_an_unknown_dataset_gets_a_suggestion() -> None:
    with pytest.raises(ContractInvalid, match="did you mean 'orders'"):
        Contracts.load(SHIPPED).named("order")


def test_the_most_literal_glob_wins() -> None:
    contracts = Contracts(
        [
            a_contract(dataset="default"),
            a_contract(dataset="all", source="incoming/**"),
            a_contract(dataset="shop", source="incoming/shop/**"),
            a_contract(dataset="returns", source="incoming/shop/returns-*.csv"),
        ]
    )
    found = {
        key: contracts.for_key(key).dataset
        for key in ["incoming/x", "incoming/shop/a/b", "incoming/shop/returns-1.csv", "outside"]
    }
    assert list(found.values()) == ["all", "shop", "returns", "default"]


@pytest.mark.parametrize(
    ("glob", "key", "expected"),
    [
        ("incoming/orders/*.csv", "incoming/orders/a.csv", True),
        ("incoming/orders/*.csv", "incoming/orders/a/b.csv", False),
        ("incoming/orders/**", "incoming/orders/a/b.csv", True),
        ("incoming/**/b.csv", "incoming/b.csv", True),
        ("incoming/a?.csv", "incoming/ab.csv", True),
        ("incoming/a?.csv", "incoming/a/.csv", False),
        ("incoming/a.b", "incoming/aXb", False),
        ("incoming/*", "incoming/with\nnewline", True),
    ],
)
def test_a_star_stays_within_a_folder_and_two_cross(glob: str, key: str, expected: bool) -> None:
    assert bool(glob_to_regex(glob).fullmatch(key)) is expected


def test_the_content_hash_changes_with_meaning_only(tmp_path: Path) -> None:
    base = load_contract(write_contract(tmp_path / "1", "dataset: orders\nformat: csv\n")).content_hash
    same = "# a comment\nformat: {type: csv}\ndataset:   orders\n"
    assert load_contract(write_contract(tmp_path / "2", same)).content_hash == base
    others = [
        write_contract(tmp_path / "3", "dataset: orders\nformat: json\n"),
        write_contract(tmp_path / "4", "dataset: orders\nformat: csv\n", steps__py="x = 1\n"),
        write_contract(tmp_path / "5", "dataset: orders\nformat: csv\n", steps__py="x = 2\n"),
    ]
    hashes = {base, *(load_contract(folder).content_hash for folder in others)}
    assert len(hashes) == 4
    assert all(len(digest) == 64 for digest in hashes)


def test_the_content_hash_tells_a_number_from_its_digits_as_keys() -> None:
    hashes = {
        a_contract(preprocess=[{"map_values": {"column": "a", "mapping": {key: "x"}}}]).content_hash for key in (1, "1")
    }
    assert len(hashes) == 2


def test_a_contract_cannot_be_changed_after_loading() -> None:
    contract = a_contract()
    with pytest.raises(ValueError, match="frozen"):
        contract.dataset = "other"  # type: ignore[misc]


@pytest.mark.parametrize("dataset", ["../up", "UPPER", "", "a b", "-a", "x" * 64])
def test_a_dataset_name_that_could_leave_its_prefix_is_refused(dataset: str) -> None:
    with pytest.raises(ValueError, match="dataset"):
        Contract.model_validate({"dataset": dataset})


def test_yaml_that_repeats_itself_without_end_is_refused_quickly(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "nested or repeated too much" in fault_of(tmp_path, bomb)
    assert "nested or repeated too much" in fault_of(tmp_path, "a: &a [*a]\n")


def test_a_missing_contract_file_is_a_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ContractInvalid, match="cannot be read: No such file"):
        load_contract(tmp_path / "nothing")


def test_loading_a_contract_imports_neither_gx_nor_pandas() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from flows.refinery.contract.loading import Contracts;"
        f"Contracts.load(Path({str(SHIPPED)!r}));"
        "print(sorted({'great_expectations', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_and_arguments_of_an_expectation_may_also_be_given_as_fields() -> None:
    given: dict[str, Any] = {"name": "expect_column_to_exist", "arguments": {"column": "a"}}
    contract = a_contract(expectations=[given])
    assert Contract.model_validate(contract.model_dump()).expectations == contract.expectations
