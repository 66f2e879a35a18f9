"""Helpers for tests that pass files through the refinery or a part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flows.refinery.contract.model import Contract
from flows.refinery.read.formats import read_partitions
from flows.refinery.read.partition import Limits, Misfit, Partition
from flows.refinery.refine import Refined
from flows.refinery.validate.coercion import ARROW_TYPES
from flows.refinery.validate.header_plan import Header, HeaderPlan
from flows.refinery.validate.judge_partition import typed_partition
from flows.refinery.validate.typed_rows import as_judged


def a_contract(**fields: Any) -> Contract:
    """Return a contract with only these fields set."""
    return Contract.model_validate({"dataset": "tests", **fields})


def good_of(refined: Refined) -> pa.Table:
    """Return the rows of an accepted file that would be published. The file must have only one output."""
    assert not refined.rejected, refined.rejected
    (output,) = refined.outputs
    return pq.read_table(output.path)


def kinds_of(refined: Refined) -> dict[str, str]:
    """Return column → the contract's name for its type, for the columns that would be published."""
    kinds = {arrow: kind for kind, arrow in ARROW_TYPES.items() if kind != "json"} | {pa.string(): "string"}
    return {field.name: kinds[field.type] for field in good_of(refined).schema}


def read(
    path: Path,
    contract: Contract | None = None,
    *,
    rows_per_partition: int = 250_000,
    limits: Limits | None = None,
) -> list[Partition]:
    """Return all partitions of a file as its reader yields them."""
    return list(
        read_partitions(
            path, contract or a_contract(), rows_per_partition=rows_per_partition, limits=limits or Limits()
        )
    )


def read_bytes(folder: Path, content: bytes, contract: Contract | None = None, **options: Any) -> list[Partition]:
    """Write a file with this content, and return all of its partitions."""
    path = folder / "upload"
    path.write_bytes(content)
    return read(path, contract, **options)


def whole(partitions: list[Partition]) -> pd.DataFrame:
    """Return the rows of all partitions in one frame."""
    return pd.concat([partition.frame for partition in partitions], ignore_index=True)


def typed(partitions: list[Partition], contract: Contract | None = None) -> pd.DataFrame:
    """Return the rows of all partitions in one frame, with types from the contract or inferred from the values."""
    contract, header = contract or a_contract(unknown_columns="evolve"), Header()
    for partition in partitions:
        header = header.joined(partition, contract)
    plan = HeaderPlan.of(contract, (), header)
    rows = pa.Table.from_batches(typed_partition(partition, plan).rows for partition in partitions)
    return as_judged(rows, plan.kinds)


def numbers(partitions: list[Partition]) -> list[int]:
    """Return the row numbers of all decoded rows."""
    return [int(number) for partition in partitions for number in partition.row_numbers]


def misfits(partitions: list[Partition]) -> list[Misfit]:
    """Return the rows of all partitions that could not be decoded."""
    return [misfit for partition in partitions for misfit in partition.misfits]
