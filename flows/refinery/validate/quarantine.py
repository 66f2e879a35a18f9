"""Create the rows of the quarantine file: the bad rows with their original values, their row numbers, the rules that
they broke and the offending values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.read.header import QUARANTINE_COLUMNS
from flows.refinery.read.partition import Misfit
from flows.refinery.validate.column_text import text_of

ROW_NUMBER, RULES, VALUES, RAW = QUARANTINE_COLUMNS


@dataclass(frozen=True)
class RowRule:
    """A rule that single rows can break."""

    id: str  # the ID that receipts show
    columns: tuple[str, ...]  # the columns with the offending values
    blocking: bool = True  # whether a row that breaks it is quarantined
    is_expectation: bool = False  # whether it is an expectation in the contract; if not, it is about types or columns


def quarantine_table(
    bad: Mapping[str, pa.Array],
    row_numbers: np.ndarray,
    masks: np.ndarray,
    rules: Sequence[RowRule],
    columns: Sequence[str],
    misfits: pa.RecordBatch,
) -> pa.Table:
    """Return the bad rows and the misfits (rows that could not be decoded) of one partition, sorted by row number.

    The table has the columns _row_number (int64), _rules (a list of strings), _values (a list with one string for each
    rule), _raw (the text of a misfit), and the file's columns as strings.

    Args:
        bad: the original values of the bad rows by column, as returned by `raw_array`.
        row_numbers: the numbers of the bad rows.
        masks: an array of shape (rules, bad rows), which is true where a row breaks a rule.
        columns: the names of the file's columns.
        misfits: the result of `misfit_rows`.
    """
    texts = {column: text_of(values).cast(pa.string()) for column, values in bad.items()}
    nothing = pa.nulls(len(row_numbers), pa.string())
    arrays = [pa.array(row_numbers), *_broken(texts, masks, rules), nothing]
    arrays += [texts.get(column, nothing) for column in columns]
    table = pa.Table.from_arrays(arrays, names=[*QUARANTINE_COLUMNS, *columns])
    if not misfits.num_rows:
        return table
    return pa.concat_tables([table, _misfits(misfits, columns)]).sort_by(ROW_NUMBER)


def _broken(texts: dict[str, pa.Array], masks: np.ndarray, rules: Sequence[RowRule]) -> tuple[pa.Array, pa.Array]:
    """Return two columns of lists: the IDs of the rules that each row broke, and the offending values."""
    nowhere = np.empty(0, dtype=np.int64)
    places, names, values = [nowhere], [nowhere], [pa.nulls(0, pa.string())]
    for position, rule in enumerate(rules):
        broken = np.flatnonzero(masks[position])
        if len(broken):
            places.append(broken)
            names.append(np.full(len(broken), position))
            values.append(_offending(rule, texts, broken))
    place = np.concatenate(places)
    order = np.argsort(place, kind="stable")  # stable, so that the rules of one row keep their order
    offsets = pa.array(np.searchsorted(place[order], np.arange(masks.shape[1] + 1)).astype(np.int32))
    ids = pa.array([rule.id for rule in rules], pa.string()).take(pa.array(np.concatenate(names)[order]))
    offending = pa.concat_arrays(values).take(pa.array(order))
    return pa.ListArray.from_arrays(offsets, ids), pa.ListArray.from_arrays(offsets, offending)


def misfit_rows(misfits: Sequence[Misfit]) -> pa.RecordBatch:
    """Convert rows that could not be decoded to a record batch with the number, the reason and the text of each row."""
    arrays = [
        pa.array([misfit.row_number for misfit in misfits], pa.int64()),
        pa.array([misfit.reason for misfit in misfits], pa.string()),
        pa.array([misfit.raw for misfit in misfits], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(arrays, names=[ROW_NUMBER, RULES, RAW])


def _misfits(misfits: pa.RecordBatch, columns: Sequence[str]) -> pa.Table:
    row_numbers, reasons, raw = misfits.columns
    offsets = pa.array(np.arange(len(raw) + 1, dtype=np.int32))
    nothing = pa.nulls(len(raw), pa.string())
    rules, values = (pa.ListArray.from_arrays(offsets, texts) for texts in (reasons, nothing))
    arrays = [row_numbers, rules, values, raw, *(nothing for _ in columns)]
    return pa.Table.from_arrays(arrays, names=[*QUARANTINE_COLUMNS, *columns])


def first_broken(masks: np.ndarray, rules: Sequence[RowRule]) -> dict[str, int]:
    """Return the number of bad rows by rule ID, where each row counts only for the first blocking rule that it broke.

    Args:
        masks: an array of shape (rules, rows), which is true where a row breaks a rule.
    """
    left = np.ones(masks.shape[1], dtype=bool)
    counts = {}
    for rule, mask in zip(rules, masks, strict=True):
        first = left & mask if rule.blocking else np.zeros_like(left)
        if first.any():
            counts[rule.id] = int(first.sum())
            left &= ~first
    return counts


def _offending(rule: RowRule, texts: dict[str, pa.Array], rows: np.ndarray) -> pa.Array:
    """Return the offending value of each row as a string, or `column=value, ...` if the rule reads several columns.
    Missing values are left out."""
    taken: Callable[[str], pa.Array] = lambda column: texts[column].take(pa.array(rows))  # noqa: E731
    columns = [column for column in rule.columns if column in texts]
    if not columns:
        return pa.nulls(len(rows), pa.string())
    if len(columns) == 1 and len(rule.columns) == 1:
        return taken(columns[0])
    named = [pc.binary_join_element_wise(column, taken(column), "=") for column in columns]
    # The "" is needed because Arrow leaves out a row in which all strings are missing.
    joined = pc.binary_join_element_wise("", *named, ", ", null_handling="skip")
    return pc.if_else(pc.equal(joined, ""), None, pc.utf8_slice_codeunits(joined, len(", ")))
