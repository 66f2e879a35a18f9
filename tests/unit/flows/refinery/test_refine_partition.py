"""`refine_partition` gives the same bytes no matter in which process it runs."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deployment.samples import orders
from flows.refinery.checks import RejectionReason
from flows.refinery.contract.loading import load_contract
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError
from flows.refinery.read.formats import read_partitions
from flows.refinery.read.partition import Limits, Partition
from flows.refinery.refine import (
    MapPartitions,
    Refined,
    refine_file,
    refine_partition,
)
from flows.refinery.validate.header_plan import Header, HeaderPlan
from flows.refinery.validate.judge_partition import TypedPartition, typed_partition
from flows.refinery.validate.judged_file import JudgedPartition
from flows.refinery.validate.rules import rules_of
from tests.unit.flows.refinery.tables import a_contract

ROOT = Path(__file__).parents[4]
ROWS = 150


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(max_workers=2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def shipped(name: str) -> Contract:
    return load_contract(ROOT / "flows" / "contracts" / name)


def with_whole_file_rules() -> Contract:
    """Return a contract for orders with expectations that need the whole file and steps that are fitted to it."""
    price = {"column": "unit_price"}
    return a_contract(
        columns={"order_id": "string", "quantity": "integer", "unit_price": "number"},
        unknown_columns="evolve",
        expectations=[
            {"expect_column_values_to_be_unique": {"column": "order_id"}},
            {"expect_column_mean_to_be_between": {**price, "min_value": -1e9, "max_value": 1e9}},
            {"expect_column_distinct_values_to_contain_set": {"column": "country", "value_set": ["DE"]}},
            {"expect_column_values_to_be_increasing": {"column": "quantity", "severity": "info"}},
            {"expect_column_value_z_scores_to_be_less_than": {**price, "threshold": 2, "double_sided": True}},
        ],
        preprocess=[
            {"fill_missing": {"column": "discount", "strategy": "median"}},
            {"standardize": {"column": "quantity"}},
        ],
    )


def source_of(name: str, folder: Path) -> Path:
    if name == "penguins":
        return ROOT / "deployment" / "samples" / "penguins.csv"
    orders.write(folder / "orders.csv", 600, "wrong_types" if name == "orders" else "duplicates")
    return folder / "orders.csv"


CONTRACTS: dict[str, Callable[[], Contract]] = {
    "orders": partial(shipped, "orders"),
    "penguins": partial(shipped, "penguins"),
    "whole file": with_whole_file_rules,
}


def refined(source: Path, contract: Contract, folder: Path, mapper: MapPartitions = map) -> Refined:
    folder.mkdir()
    return refine_file(source, contract, folder, rows_per_partition=ROWS, map_partitions=mapper)


def result_of(refined: Refined) -> Any:
    """Return the parts of a result that must not depend on the process, with the digests of the files."""
    files = [*refined.outputs, *(refined.quarantine)]
    return (
        [(file.folder, file.rows, file.sha256) for file in files],
        (refined.rows_in, refined.rows_published, refined.quarantined, refined.dropped),
        (refined.checks, refined.rejected, refined.fitted, refined.columns_out),
    )


@pytest.mark.parametrize("name", CONTRACTS)
def test_worker_processes_and_partitions_in_memory_publish_the_same_bytes(
    tmp_path: Path, name: str, pool: ProcessPoolExecutor
) -> None:
    contract, source = CONTRACTS[name](), source_of(name, tmp_path)
    plain = refined(source, contract, tmp_path / "plain")
    assert plain.rejected == ()
    assert plain.rows_published > 0
    assert plain.quarantine

    assert len(list(read_partitions(source, contract, rows_per_partition=ROWS))) > 2
    from_memory = refined(source, contract, tmp_path / "memory", lambda judge, partitions: map(judge, list(partitions)))
    by_workers = refined(source, contract, tmp_path / "workers", pool.map)
    assert result_of(from_memory) == result_of(plain)
    assert result_of(by_workers) == result_of(plain)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_partition_gives_the_same_result_again_and_in_another_process(
    tmp_path: Path, name: str, pool: ProcessPoolExecutor
) -> None:
    contract = CONTRACTS[name]()
    read = list(read_partitions(source_of(name, tmp_path), contract, rows_per_partition=ROWS))
    plan = plan_of(contract, read)
    partitions = [typed_partition(partition, plan) for partition in read]
    here, again = ([refine_partition(partition, plan) for partition in partitions] for _ in range(2))
    there = list(pool.map(partial(refine_partition, plan=plan), partitions))
    assert list(map(value_of, here)) == list(map(value_of, again)) == list(map(value_of, there))


def plan_of(contract: Contract, partitions: list[Partition]) -> HeaderPlan:
    header = Header()
    for partition in partitions:
        header = header.joined(partition, contract)
    return HeaderPlan.of(contract, rules_of(contract), header)


def value_of(refined: JudgedPartition) -> Any:
    return (
        (
            refined.rows_in,
            refined.misfits.to_pydict(),
            refined.nulls,
            list(map(str, refined.rows.columns)),
            refined.whole_file_rows and refined.whole_file_rows.to_pydict(),
        ),
        refined.bad.to_pydict() if refined.bad else None,
        (refined.bad_numbers.tolist(), refined.bad_masks.tolist(), refined.broken.tolist()),
        [None if hashes is None else hashes.tolist() for hashes in refined.key_hashes],
        re.sub(" at 0x[0-9a-f]+", "", repr(refined.states)),
    )


def test_the_seconds_of_each_part_are_counted(tmp_path: Path) -> None:
    seconds = refined(source_of("penguins", tmp_path), shipped("penguins"), tmp_path / "work").seconds
    assert set(seconds) == {"read", "validate", "preprocess", "write"}
    assert min(seconds.values()) > 0


@pytest.mark.parametrize(
    ("content", "changes", "part"),
    [
        ("", {}, "read"),
        (
            "a\nx\n",
            {"expectations": [{"expect_column_max_to_be_between": {"column": "a", "max_value": 1}}]},
            "validate",
        ),
        ("a\nx\n", {"preprocess": [{"cast": {"column": "a", "type": "integer"}}]}, "preprocess"),
        ("a\nx\n", {"output": {"partition_by": ["day(a)"]}}, "write"),
    ],
)
def test_a_rejection_names_the_part_that_rejected(
    tmp_path: Path, content: str, changes: dict[str, Any], part: str
) -> None:
    (tmp_path / "source").write_text(content)
    contract = a_contract(unknown_columns="evolve", **changes)
    try:
        reasons = refined(tmp_path / "source", contract, tmp_path / "work").rejected
    except TerminalError as error:  # the file could not be checked at all
        reasons = (RejectionReason.of(error),)
    assert [reason.part for reason in reasons] == [part]


@pytest.mark.heavy
def test_late_columns_make_earlier_partitions_smaller(tmp_path: Path) -> None:
    late = ", ".join(f'"c{column}": 1' for column in range(100))
    source = tmp_path / "upload"
    source.write_text('{"a": 1}\n' * 100 + f"{{{late}}}\n")
    cells = []

    def counted(function: Callable[[TypedPartition], JudgedPartition], partitions: Any) -> Iterator[JudgedPartition]:
        for refined in map(function, partitions):
            cells.append(refined.rows.num_rows * refined.rows.num_columns)
            yield refined

    refined = refine_file(
        source, a_contract(), tmp_path, limits=Limits(max_partition_cells=1_000), map_partitions=counted
    )
    assert refined.rows_published == 101
    assert max(cells) <= 1_100
