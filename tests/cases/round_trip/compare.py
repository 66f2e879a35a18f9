"""Compares what Sluice published from a random file with what was written into it."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from blocks.settings import CONTRACTS
from flows.refinery.contract.loading import load_contract
from flows.refinery.contract.model import Contract
from flows.refinery.refine import REJECTING, Refined, refine_file
from tests.cases.round_trip.table import Column, Written


def outcome(written: Written, rows_per_partition: int) -> tuple[str, str]:
    """Refine a file. Return the result and its details.

    The result is "published", "quarantined" (rows are in quarantine, as they should be), "rejected" or "wrong". The
    details are the code of a rejection, or what is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        upload = Path(folder) / "upload"
        upload.write_bytes(written.content)
        try:
            refined = refine_file(upload, _contract_of(written), Path(folder), rows_per_partition=rows_per_partition)
        except REJECTING as error:
            return _rejected(written, error.code, str(error))
        if refined.rejected:
            return _rejected(written, refined.rejected[0].code, refined.rejected[0].message)
        return _published(written, refined)


def _contract_of(written: Written) -> Contract:
    if written.contract is None:
        return _default_contract()
    return Contract.model_validate({"dataset": "round_trip", **written.contract})


@cache
def _default_contract() -> Contract:
    return load_contract(CONTRACTS / "default")


def _rejected(written: Written, code: str, message: str) -> tuple[str, str]:
    rows = set(range(1, len(written.columns[0].values) + 1))
    is_true = code in written.may_reject or (code == "no_good_row" and rows <= written.must_fail | written.may_fail)
    return ("rejected", code) if is_true else ("wrong", f"needlessly rejected: {code}: {message}")


def _published(written: Written, refined: Refined) -> tuple[str, str]:
    bad: dict[int, list[str]] = {}
    if refined.quarantine:
        table = pq.read_table(refined.quarantine[0].path)
        bad = dict(zip(table["_row_number"].to_pylist(), table["_rules"].to_pylist(), strict=True))
    if needless := sorted(bad.keys() - written.must_fail - written.may_fail):
        return "wrong", f"row {needless[0]} was needlessly quarantined: {bad[needless[0]]}"
    if missed := sorted(written.must_fail - bad.keys()):
        return "wrong", f"row {missed[0]} has an invalid value, but was published"
    got = pq.read_table(refined.outputs[0].path)
    good = [place for place in range(len(written.columns[0].values)) if place + 1 not in bad]
    known = {column.name for column in written.columns if any(value is not None for value in column.values)}
    if not known <= set(got.column_names) or got.num_rows != len(good):
        return "wrong", f"{got.num_rows} rows of {got.column_names}, not {len(good)} of {sorted(known)}"
    declared = (written.contract or {}).get("columns", {})
    for place, column in enumerate(written.columns):
        texts = written.texts[place] if written.texts else None
        if column.name not in got.column_names:
            continue  # a JSON file may lack the name of a column without values
        values = got[column.name].to_pylist()
        fault = _fault_of(column, texts, good, values, written.decimal, is_declared=column.name in declared)
        if fault:
            return "wrong", f"column {column.name} ({declared.get(column.name, 'not declared')}): {fault}"
    return ("quarantined" if bad else "published"), ""


def _fault_of(
    column: Column, texts: list[str] | None, good: list[int], got: list[Any], decimal: str, *, is_declared: bool
) -> str:
    """Describe the first published value in a column that differs from what was written. Return "" if there is none."""
    holds_text = any(isinstance(value, str) for value in got)
    for place, value in zip(good, got, strict=True):
        right = column.values[place]
        text = texts[place] if texts else None
        if is_declared:
            same = _is_declared_value(column.kind, right, value, text)
        else:
            same = _is_said(right, text, value, decimal, holds_text=holds_text)
        if not same:
            said = f"{right!r}" + (f", written as {text!r}" if text is not None else "")
            return f"row {place + 1} has {said}, but {value!r} was published"
    return ""


def _is_declared_value(kind: str, right: Any, got: Any, text: str | None) -> bool:
    if right is None or got is None:
        return right is None and got is None
    if kind == "number":
        return isinstance(got, float) and got == float(right)
    if kind == "json":
        return bool(json.loads(got) == right)
    if kind == "string" and text is not None:
        right = text
    return type(got) is type(right) and bool(got == right)


def _is_said(right: Any, text: str | None, got: Any, decimal: str, *, holds_text: bool) -> bool:
    """Return whether Sluice may publish the value `got` for the value `right`, which is written as `text`, in a column
    that the contract does not declare. `holds_text` is whether Sluice published any string in this column."""
    mark = text if text is not None else right
    if got is None:
        return right is None or (not holds_text and isinstance(mark, str) and mark.strip() in _marks())
    if isinstance(got, str):
        return got == text if text is not None else _is_text_of(right, got)
    if isinstance(got, bool):
        return right is got or (text is not None and text.lower() == str(got).lower())
    if isinstance(got, int | float):
        number = right if isinstance(right, int | float | Decimal) and not isinstance(right, bool) else None
        if number is None and text is not None:
            number = _number_in(text, decimal)
        return number is not None and _is_kept(number, got)
    return bool(_as_moment(right) == _as_moment(got))


@cache
def _marks() -> frozenset[str]:
    form = _default_contract().format
    return frozenset({*form.missing_values, *form.missing_unless_text})


def _is_text_of(right: Any, got: str) -> bool:
    """Return whether `got` is a way to write the value `right`."""
    if right is None or isinstance(right, str):
        return right == got
    if isinstance(right, bool):
        return got == str(right).lower()
    if isinstance(right, int | float | Decimal):
        number = _number_in(got, ".")
        return number is not None and (number == right or float(number) == right)
    if isinstance(right, dict | list):
        return bool(json.loads(got) == right)
    return got in (str(right), right.isoformat(), str(right).removesuffix("+00:00"))


def _number_in(text: str, decimal: str) -> Decimal | None:
    """Return the number that is written in a string with this decimal separator. Return None if there is none, or if a
    leading zero or a plus sign shows that the string is an identifier."""
    text = text.strip(" \t").replace(decimal, ".") if decimal == "." or "." not in text else ""
    plain = text.lstrip("-")
    if text.startswith("+") or (plain[:1] == "0" and plain[1:2].isdigit() and plain.isdigit()):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _is_kept(number: float | Decimal, got: float) -> bool:
    """Return whether a published number is equal to the original one. A float is equal to a Decimal if its shortest
    form, or its form with as many digits, is."""
    if isinstance(got, int) or isinstance(number, float):
        return Decimal(number) == Decimal(got)
    exact = Decimal(number)
    digits = max(1, len(exact.as_tuple().digits))
    return exact in (Decimal(repr(got)), Decimal(f"{got:.{digits - 1}e}"))


def _as_moment(value: Any) -> Any:
    """Convert a date (to midnight), a timestamp or a string in ISO 8601 to a timestamp in UTC. Without an offset, a
    timestamp is in UTC. Return other values unchanged."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    return value
