"""Contracts are loaded and matched to object keys, and invalid ones are rejected with the line, the field and a fix."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.refinery.contract.globs import glob_to_regex, globs_overlap
from flows.refinery.contract.loading import ContractInvalid, Contracts, load_contract
from flows.refinery.contract.model import Contract
from tests.unit.flows.refinery.tables import a_contract
from tests.unit.flows.refinery.wrong_contracts import faults_of, write_contract

SHIPPED = Path(__file__).parents[5] / "flows" / "contracts"


def test_the_shipped_contracts_load_and_apply_to_their_folders() -> None:
    contracts = Contracts.load(SHIPPED)
    assert {contract.dataset for contract in contracts} >= {"default", "orders", "penguins"}
    assert contracts.for_key("incoming/orders/2026/11/orders.csv").dataset == "orders"
    assert contracts.for_key("incoming/penguins/p.csv.gz").dataset == "penguins"
    assert contracts.for_key("incoming/orders.csv").is_default
    assert contracts.for_key("incoming/unknown dataset/é.csv").is_default


def test_every_section_of_a_contract_is_read(tmp_path: Path) -> None:
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
    assert (first.severity, first.arguments["mostly"], first.columns) == ("critical", 0.9, ["price"])
    assert "severity" not in first.arguments
    assert second.arguments["row_condition"] == "price > 3"
    assert (third.name, third.arguments, third.severity) == ("expect_column_to_exist", {"column": "id"}, "info")
    assert [(step.name, step.arguments, step.is_own) for step in contract.preprocess] == [
        ("clean_column_names", {}, False),
        ("fill_missing", {"column": "price", "value": 0}, False),
        ("steps.own", {"factor": 2}, True),
    ]
    assert contract.output.partition_by == ("day",)
    assert contract.folder == folder


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({}, "warning"),
        ({"severity": "critical"}, "warning"),
        ({"severity": "critical", "meta": {"critical": True}}, "critical"),
        ({"severity": "info"}, "info"),
    ],
)
def test_the_severity_that_gx_writes_by_default_is_read_as_a_warning(
    tmp_path: Path, written: dict[str, Any], meant: str
) -> None:
    entry = {"type": "expect_column_to_exist", "kwargs": {"column": "a"}, **written}
    suite = json.dumps({"expectations": [entry]})
    folder = write_contract(tmp_path, "dataset: orders\nsuite: suite.json\n", suite__json=suite)
    assert load_contract(folder).expectations[0].severity == meant


def test_custom_steps_are_looked_up_without_running_them(tmp_path: Path) -> None:
    steps = "raise SystemExit('executed')\ndef add_revenue(frame):\n    return frame\n"
    folder = write_contract(tmp_path, "dataset: orders\npreprocess: [steps.add_revenue]\n", steps__py=steps)
    assert load_contract(folder).preprocess[0].function == "add_revenue"
    (fault,) = faults_of(tmp_path, "dataset: orders\npreprocess: [steps.add_revenu]\n", steps__py=steps)
    assert "'add_revenue'" in fault
    (fault,) = faults_of(tmp_path, "dataset: orders\npreprocess: [steps.x]\n", steps__py="def x(:\n")
    assert fault.startswith("contract.yaml:2: preprocess: steps.py ")


@pytest.mark.parametrize(("given", "named"), [("facto: 2", "'factor'"), ("by: 2", "'factor'")])
def test_an_unknown_or_missing_argument_of_a_custom_step_is_reported(tmp_path: Path, given: str, named: str) -> None:
    steps = "def scale(frame, factor, *, by=1):\n    return frame\n"
    text = f"dataset: orders\npreprocess:\n  - steps.scale: {{{given}}}\n"
    (fault,) = faults_of(tmp_path, text, steps__py=steps)
    assert fault.startswith("contract.yaml:3: preprocess: steps.scale ")
    assert named in fault


def test_all_faults_of_all_contracts_are_reported_together(tmp_path: Path) -> None:
    write_contract(tmp_path, "dataset: a\nfoo: 1\nbar: 2\n", dataset="a")
    write_contract(tmp_path, "dataset: b\noutput: {format: x}\n", dataset="b")
    with pytest.raises(ContractInvalid) as caught:
        Contracts.load(tmp_path)
    assert len(str(caught.value).splitlines()) == 3


def test_without_a_default_contract_nothing_is_loaded(tmp_path: Path) -> None:
    write_contract(tmp_path, "dataset: orders\n")
    with pytest.raises(ContractInvalid) as caught:
        Contracts.load(tmp_path)
    assert "'default'" in str(caught.value)


def test_an_unknown_dataset_gets_a_suggestion() -> None:
    with pytest.raises(ContractInvalid) as caught:
        Contracts.load(SHIPPED).named("order")
    assert "'orders'" in str(caught.value)


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
def test_one_star_matches_within_a_folder_and_two_across_folders(glob: str, key: str, expected: bool) -> None:
    assert bool(glob_to_regex(glob).fullmatch(key)) is expected


KEYS = ["".join(signs) for length in range(7) for signs in product("ab/", repeat=length)]
GLOBS = st.lists(st.sampled_from(["a", "b", "/", "?", "*", "**", "**/"]), max_size=3).map("".join)


@given(GLOBS, GLOBS)
def test_two_globs_overlap_if_and_only_if_a_key_matches_both(one: str, other: str) -> None:
    both = glob_to_regex(one), glob_to_regex(other)
    assert globs_overlap(one, other) is any(all(glob.fullmatch(key) for glob in both) for key in KEYS)


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


def test_the_content_hash_distinguishes_a_number_from_its_digits_as_keys() -> None:
    hashes = {
        a_contract(preprocess=[{"map_values": {"column": "a", "mapping": {key: "x"}}}]).content_hash for key in (1, "1")
    }
    assert len(hashes) == 2


def test_a_contract_cannot_be_changed_after_loading() -> None:
    contract = a_contract()
    with pytest.raises(ValidationError) as caught:
        contract.dataset = "other"  # type: ignore[misc]
    assert [fault["type"] for fault in caught.value.errors()] == ["frozen_instance"]


@pytest.mark.parametrize("dataset", ["../up", "UPPER", "", "a b", "-a", "x" * 64])
def test_an_invalid_dataset_name_is_rejected(dataset: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Contract.model_validate({"dataset": dataset})
    assert [fault["loc"] for fault in caught.value.errors()] == [("dataset",)]


def test_yaml_that_expands_enormously_is_rejected(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert len(faults_of(tmp_path, bomb)) == 1


def test_a_missing_contract_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractInvalid) as caught:
        load_contract(tmp_path / "nothing")
    assert str(tmp_path / "nothing" / "contract.yaml") in str(caught.value)


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
