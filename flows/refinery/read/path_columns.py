"""Turn folders in an object key into columns, if they are in the form `dt=2024-01-01/`, which Hive and Spark write."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import unquote

import pandas as pd

from flows.refinery.contract.model import Contract
from flows.refinery.read.columns import missing_texts
from flows.refinery.read.partition import Partition
from flows.refinery.read.rejections import PathColumnUnusable

_MISSING = "__HIVE_DEFAULT_PARTITION__"

Folders = Sequence[tuple[str, str]]
"""The names (percent-decoded) and values (as in the key) of a key's `name=value` folders, outermost folder first."""


def folders_of(key: str) -> Folders:
    """Return the `name=value` folders in an object key."""
    parts = [folder.partition("=") for folder in key.split("/")[:-1]]
    return tuple((unquote(name), value) for name, mark, value in parts if name and mark)


def with_path_columns(partitions: Iterator[Partition], contract: Contract, folders: Folders) -> Iterator[Partition]:
    """Add the contract's `path_columns` to each partition as string columns. Raise PathColumnUnusable if the key does
    not have exactly one folder for each of them, if a folder's value is not UTF-8, or if the file already has such a
    column."""
    values = {name: _value_of(name, folders, contract) for name in contract.path_columns}
    for found in partitions:
        if twice := [name for name in values if name in found.frame.columns]:
            raise PathColumnUnusable(
                f"the file itself has the column {twice[0]!r}; remove it from the file, or from `path_columns` in the"
                " contract"
            )
        yield replace(found, frame=_with(found.frame, values)) if values else found


def _value_of(name: str, folders: Folders, contract: Contract) -> str | None:
    values = [value for folder, value in folders if folder == name]
    if len(values) != 1:
        fault = f"more than one folder `{name}=…/`" if values else f"no folder `{name}=…/`"
        raise PathColumnUnusable(
            f"the file's key has {fault}; upload it into such a folder, for example `{name}=value/`, or remove"
            f" {name!r} from `path_columns` in the contract"
        )
    try:
        value = unquote(values[0], errors="strict")
    except UnicodeDecodeError:
        raise PathColumnUnusable(f"the folder `{name}=…/` of the file's key has escapes that are not UTF-8") from None
    return None if value == _MISSING or value in missing_texts(contract, name) else value


def _with(frame: pd.DataFrame, values: dict[str, str | None]) -> pd.DataFrame:
    columns = {name: pd.Series([value] * len(frame), frame.index, dtype="str") for name, value in values.items()}
    return frame.assign(**columns)
