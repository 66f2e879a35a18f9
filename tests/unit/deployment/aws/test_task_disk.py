"""`sluice deploy` warns if a contract keeps rows on the disk until the file ends, and the disk is too small."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deployment.aws.deploy_stack import TEMPLATE
from deployment.aws.task_disk import disk_warning
from deployment.aws.templates import default_parameters
from deployment.commands.deploy import warn_of_small_disk
from flows.refinery.contract.model import Contract

GIB = 1024**3
UNIQUE = {"expectations": [{"expect_column_values_to_be_unique": {"column": "a"}}]}
FITTED = {"preprocess": [{"standardize": {"columns": ["a"]}}]}
WAITS = "expectations: expect_column_values_to_be_unique(a)"


def contract(**fields: Any) -> Contract:
    declared = {"dataset": "some", "columns": {"a": "number"}, "unknown_columns": "quarantine"}
    return Contract.model_validate({**declared, **fields})


def with_parameters(**changed: int) -> dict[str, str]:
    return default_parameters(TEMPLATE) | {name: str(value) for name, value in changed.items()}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (UNIQUE, WAITS),
        (FITTED, "preprocess: standardize"),
        ({"preprocess": [{"drop_duplicates": {}}]}, "preprocess: drop_duplicates"),
        (UNIQUE | FITTED, f"{WAITS}; preprocess: standardize"),
        ({"unknown_columns": "evolve"}, "unknown_columns: evolve, for files with columns that the contract does not"),
    ],
)
def test_the_warning_names_what_makes_rows_wait_and_its_advice_is_enough(fields: dict[str, Any], reason: str) -> None:
    some = contract(**fields)
    warning = disk_warning(some, with_parameters(MaxObjectBytes=40 * GIB))
    assert warning is not None
    assert reason in warning
    assert "TaskEphemeralStorageGiB=21 is enough for csv files of about 14.0 GB" in warning
    found = re.search(r"set TaskEphemeralStorageGiB=(\d+), or lower MaxObjectBytes to ([\d,]+)", warning)
    assert found
    disk_gib, largest = int(found[1]), int(found[2].replace(",", ""))
    assert disk_warning(some, with_parameters(MaxObjectBytes=40 * GIB, TaskEphemeralStorageGiB=disk_gib)) is None
    assert disk_warning(some, with_parameters(MaxObjectBytes=40 * GIB, TaskEphemeralStorageGiB=disk_gib - 1))
    assert disk_warning(some, with_parameters(MaxObjectBytes=largest)) is None
    assert disk_warning(some, with_parameters(MaxObjectBytes=largest + GIB))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"expectations": [{"expect_column_values_to_not_be_null": {"column": "a"}}]},
        {"expectations": [{"expect_column_values_to_be_unique": {"column": "a", "severity": "info"}}]},
        {"preprocess": [{"standardize": {"columns": ["a"], "fitted": {"a": {"mean": 0, "std": 1}}}}]},
    ],
    ids=["nothing", "a rule on rows", "a rule that quarantines no row", "a pinned step"],
)
def test_a_contract_whose_rows_do_not_wait_needs_no_disk_for_the_file(fields: dict[str, Any]) -> None:
    assert disk_warning(contract(**fields), with_parameters(MaxObjectBytes=200 * GIB)) is None


def test_with_the_default_parameters_only_the_largest_parquet_files_are_too_large() -> None:
    default = with_parameters()
    assert disk_warning(contract(**UNIQUE), default) is None
    assert "parquet files of about 6.5 GB" in str(disk_warning(contract(**UNIQUE), default, "parquet"))
    assert disk_warning(contract(**UNIQUE, format={"type": "parquet"}), default)


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_rows_of_json_wait_because_a_later_row_may_have_more_columns(kind: str) -> None:
    warning = disk_warning(contract(format={"type": kind}), with_parameters(MaxObjectBytes=40 * GIB))
    assert f"format {kind}: a later row may have more columns" in str(warning)


def test_a_compressed_file_needs_as_much_disk_as_its_content() -> None:
    compressed = disk_warning(contract(**UNIQUE), with_parameters(MaxObjectBytes=10 * GIB), "csv", 4)
    plain = disk_warning(contract(**UNIQUE), with_parameters(MaxObjectBytes=40 * GIB))
    advice = r"TaskEphemeralStorageGiB=(\d+), or lower MaxObjectBytes to ([\d,]+)"
    (packed_gib, packed_bytes), (plain_gib, plain_bytes) = (
        [int(number.replace(",", "")) for number in re.findall(advice, str(warning))[0]]
        for warning in (compressed, plain)
    )
    assert "compressed csv files" in str(compressed)
    assert packed_gib == plain_gib
    assert packed_bytes == plain_bytes // 4


def test_the_disk_must_also_have_room_for_output_files() -> None:
    default = with_parameters()
    output = {"partition_by": ["a"], "max_file_bytes": 4 * GIB}
    assert disk_warning(contract(**UNIQUE, output=output), default)


def test_a_disk_that_fargate_does_not_have_is_not_advised() -> None:
    warning = disk_warning(contract(**UNIQUE), with_parameters(MaxObjectBytes=200 * GIB))
    assert warning is not None
    assert "set TaskEphemeralStorageGiB" not in warning


def test_the_warning_of_deploy_names_the_contract_file(tmp_path: Path) -> None:
    output = io.StringIO()
    some = contract(**UNIQUE, folder=tmp_path / "some")
    warn_of_small_disk(Console(file=output), [contract(), some], {"MaxObjectBytes": str(40 * GIB)})
    assert output.getvalue().startswith(f"warning: {tmp_path / 'some' / 'contract.yaml'}: {WAITS}")
    assert output.getvalue().count("warning:") == 1
