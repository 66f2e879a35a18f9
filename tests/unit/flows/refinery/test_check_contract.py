"""An invalid contract is rejected before any row is checked, with the file, line, field and a suggested name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from flows.refinery.check_contract import check_contract, check_contracts
from flows.refinery.contract.loading import ContractInvalid, Contracts, load_contract, overridden
from flows.refinery.preprocess.table_steps import Select
from flows.refinery.refine import refine_file
from tests.unit.flows.refinery.tables import a_contract
from tests.unit.flows.refinery.wrong_contracts import (
    EXPECTATIONS,
    SHAPES,
    STEPS,
    WrongContract,
    faults_of,
    write_contract,
)

SHIPPED = Path(__file__).parents[4] / "flows" / "contracts"
COLUMNS = "columns: {id: string, n: integer, day: date, ok: boolean}\nunknown_columns: freeze\n"


@pytest.mark.parametrize("wrong", [*SHAPES, *EXPECTATIONS, *STEPS], ids=lambda wrong: wrong.text.splitlines()[-1])
def test_a_wrong_contract_is_rejected_with_line_field_and_suggestion(tmp_path: Path, wrong: WrongContract) -> None:
    faults = faults_of(tmp_path, wrong.text)
    assert faults[-1].startswith(f"contract.yaml:{wrong.line}: {wrong.field}")
    assert [name for name in wrong.names if name not in "\n".join(faults)] == []


def test_the_shipped_contracts_are_valid() -> None:
    check_contracts(Contracts.load(SHIPPED))


def test_all_faults_of_a_contract_are_reported_together(tmp_path: Path) -> None:
    text = (
        f"dataset: orders\n{COLUMNS}expectations:\n  - expect_column_mean_to_be_between: {{column: id, min_value: 1}}\n"
        "preprocess:\n  - fill_missing: {colum: n}\n  - cast: {column: n, type: int}\n"
    )
    assert [line.split(": ")[0] for line in faults_of(tmp_path, text)] == [
        "contract.yaml:5",
        "contract.yaml:7",
        "contract.yaml:8",
    ]


def test_the_faults_of_all_contracts_are_reported_together(tmp_path: Path) -> None:
    for dataset in ("default", "orders"):
        write_contract(tmp_path, f"dataset: {dataset}\nexpectations: [expect_nothing]\n", dataset)
    with pytest.raises(ContractInvalid) as caught:
        check_contracts(Contracts.load(tmp_path))
    assert len(str(caught.value).splitlines()) == 2


def test_a_wrong_contract_is_rejected_before_the_file_is_read(tmp_path: Path) -> None:
    contract = a_contract(expectations=[{"expect_column_values_to_be_in_set": {"column": "a", "value_set": []}}])
    with pytest.raises(ContractInvalid):
        refine_file(tmp_path / "no such file", contract, tmp_path)


def test_a_contract_that_is_changed_for_a_run_is_checked_as_well() -> None:
    contract = Contracts.load(SHIPPED).named("orders")
    changed = overridden(contract, {"preprocess": [{"fill_missing": {"colum": "x", "value": 0}}]})
    with pytest.raises(ContractInvalid) as caught:
        check_contract(changed)
    assert str(caught.value).startswith("contract: preprocess.0: ")
    assert "'column'" in str(caught.value)


# --- the suite --------------------------------------------------------------------------------------------------------


def test_a_suite_with_a_fault_is_rejected(tmp_path: Path) -> None:
    suite = json.dumps({"expectations": [{"expectation_type": "expect_nothing", "kwargs": {}}]})
    (fault,) = faults_of(tmp_path, "dataset: orders\nsuite: suite.json\n", suite__json=suite)
    assert fault.startswith("suite.json: expectations[0]: ")
    (fault,) = faults_of(tmp_path, "dataset: orders\nsuite: suite.json\n", suite__json="[]")
    assert fault.startswith("contract.yaml:2: suite: ")


def test_a_fault_in_a_suite_is_reported_with_its_position(tmp_path: Path) -> None:
    entries = [
        {"type": name, "kwargs": {"column": "a"}} for name in ("expect_column_to_exist", "expect_column_to_exst")
    ]
    text = "dataset: orders\nsuite: suite.json\nexpectations:\n  - expect_column_to_exist: {column: a}\n"
    (fault,) = faults_of(tmp_path, text, suite__json=json.dumps({"expectations": entries}))
    assert fault.startswith("suite.json: expectations[1]: ")
    assert "'expect_column_to_exist'" in fault
    text += "columns: {b: string}\nunknown_columns: freeze\n"
    faults = faults_of(tmp_path, text, suite__json=json.dumps({"expectations": entries[:1]}))
    assert [line.split(": expectations: ")[0] for line in faults] == [
        "contract.yaml:4",
        "suite.json: expectations[0]",
    ]


# --- steps ------------------------------------------------------------------------------------------------------------


def test_all_declared_columns_may_be_dropped_if_a_file_may_have_others(tmp_path: Path) -> None:
    text = "dataset: orders\ncolumns: {id: string}\npreprocess:\n  - drop_columns: {columns: [id]}\n"
    check_contract(load_contract(write_contract(tmp_path, text)))


def test_a_step_may_use_an_undeclared_column_if_a_file_may_have_it(tmp_path: Path) -> None:
    text = "dataset: orders\ncolumns: {id: string}\npreprocess:\n  - fill_missing: {column: discount, value: 0}\n"
    check_contract(load_contract(write_contract(tmp_path, text)))


def test_an_unexpected_error_of_a_step_is_a_fault_of_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(step: Select, frame: pd.DataFrame) -> pd.DataFrame:
        del step, frame
        raise KeyError("surprise")

    monkeypatch.setattr(Select, "apply", broken)
    (fault,) = faults_of(tmp_path, f"dataset: orders\n{COLUMNS}preprocess:\n  - select: {{columns: [n]}}\n")
    assert fault.startswith("contract.yaml:5: preprocess: ")
    assert "KeyError: 'surprise'" in fault


def test_steps_are_checked_with_the_columns_that_earlier_steps_leave(tmp_path: Path) -> None:
    steps = (
        f"dataset: orders\n{COLUMNS}"
        "preprocess:\n  - rename: {columns: {n: amount}}\n  - cast: {column: id, type: number}\n"
    )
    sound = steps + "  - standardize: {columns: [amount, id]}\noutput: {partition_by: [day(day)]}\n"
    check_contract(load_contract(write_contract(tmp_path, sound)))
    (fault,) = faults_of(tmp_path, f"{steps}  - clip: {{column: n, lower: 0}}\n")
    assert "'n'" in fault
    (fault,) = faults_of(tmp_path, f"{steps}output: {{partition_by: n}}\n")
    assert fault.startswith("contract.yaml:7: output: ")
    (fault,) = faults_of(
        tmp_path, f"{steps}  - rename: {{columns: {{id: day_day}}}}\noutput: {{partition_by: day(day)}}\n"
    )
    assert "already has a column 'day_day'" in fault


# --- imports ----------------------------------------------------------------------------------------------------------


_COMMANDS = [["--help"], ["status", "--help"], ["deploy", "--help"], ["contract", "diff", "orders", "penguins"]]
_RUN = f"""
from typer.testing import CliRunner
from deployment.cli import app
for words in {_COMMANDS}:
    CliRunner().invoke(app, words)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    "code",
    [
        f"from pathlib import Path; from flows.refinery.contract.loading import Contracts;"
        f"Contracts.load(Path({str(SHIPPED)!r}))",
        "import flows.composition",
        "import deployment.prefect_setup.automations",
        _RUN,
    ],
    ids=["load", "pipeline", "deadlines", "commands"],
)
def test_what_only_loads_contracts_does_not_import_great_expectations(code: str) -> None:
    code += "\nimport sys; print('great_expectations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
