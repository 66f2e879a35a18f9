"""Recognize a JSON file that consists of a single object with a whole table in it, instead of one object per row."""

import json
from typing import Any

from flows.refinery.contract.model import Contract
from flows.refinery.read.rejections import JsonNotRows

_RECORDS = 'write it with `to_json(orient="records", lines=True)`'


def require_row(raw: str, contract: Contract) -> None:
    """Raise JsonNotRows if a file's only object contains a whole table, unless the contract declares one of the
    object's members as a column.

    Args:
        raw: the object as JSON; empty if the file is not a single object.
    """
    if "[" not in raw and raw.count("{") < 2:
        return
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return  # the row is a misfit
    if not isinstance(value, dict) or value.keys() & contract.columns.keys():
        return
    if _is_list_of(list, value.get("data")) and isinstance(value.get("columns"), list):
        raise JsonNotRows(
            f'the file is one object with `columns` and `data`, as orient="split" in pandas writes it; {_RECORDS}'
        )
    if _is_by_column(value):
        raise JsonNotRows(f"the file is one object of columns or rows with an index, as pandas writes it; {_RECORDS}")
    if path := _path_of_records(value):
        raise JsonNotRows(
            f"the file is one object with an array of objects in it; to read these as rows, write"
            f" `records_path: {path}` under `format` in a contract; to keep the object as one row, declare the column"
            f" `{path.partition('.')[0]}: json`",
            records_path=path,
        )


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, kind) for part in value)


def _is_by_column(value: dict[str, Any]) -> bool:
    """Return whether all members are objects with the same keys, and either these keys or the names of the members are
    0, 1, 2 and so on."""
    parts = list(value.values())
    if not all(isinstance(part, dict) and part and part.keys() == parts[0].keys() for part in parts):
        return False
    return _is_index(value) or (bool(parts) and _is_index(parts[0]))


def _is_index(names: dict[str, Any]) -> bool:
    return list(names) == [str(number) for number in range(len(names))]


def _path_of_records(value: dict[str, Any]) -> str | None:
    """Return the path to the first array of objects, at most two levels deep; None if there is none."""
    for name, part in value.items():
        if _is_list_of(dict, part):
            return name
    for name, part in value.items():
        if isinstance(part, dict):
            inner = next((inner for inner, found in part.items() if _is_list_of(dict, found)), None)
            if inner is not None:
                return f"{name}.{inner}"
    return None
