"""The soak's uploads: small files with an expected outcome that does not come from the code under test."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READINGS, EVENTS, MISC = "readings", "events", "misc"
DEFAULT = "default"
_REUPLOADS = 0.35
_ODD_NAMES = ("plain", "with space", "plus+sign", "é", "per%2Fcent", "emoji \U0001f4e6")
_KINDS = {"good": 70, "bad rows": 10, "repeated rows": 8, "too bad": 5, "no rows": 3, "empty": 2, "not text": 2}

_CONTRACT = """\
dataset: {dataset}
source: incoming/{dataset}/**
on_reupload: {on_reupload}
columns:
  id: {{type: string, nullable: false}}
  value: {{type: number, nullable: false}}
expectations:
  - expect_table_row_count_to_be_between: {{min_value: 1, severity: critical}}
  - expect_column_values_to_be_between: {{column: value, min_value: 0, max_value: 100}}
bad_rows: {{policy: quarantine, max_fraction: 0.5}}
preprocess:
  - clean_column_names
  - drop_duplicates: {{subset: [id]}}
output: {{format: parquet, compression: {compression}}}
"""
_DEFAULT_CONTRACT = """\
dataset: default
unknown_columns: evolve
expectations:
  - expect_table_row_count_to_be_between: {{min_value: 1, severity: critical}}
preprocess:
  - clean_column_names
output: {{format: parquet, compression: {compression}}}
"""


@dataclass(frozen=True)
class SoakFile:
    """A file to upload, and its expected outcome.

    Attributes:
        number: the position of the file in the order of uploads, from 1.
        key: the object key. If an earlier file has the same key, this is a re-upload.
        folder: the folder below incoming/. If there is a contract for it, it is the dataset.
        published: the IDs of the rows that must be published. It is empty if the file must be rejected.
        rejected: whether the file must be rejected.
    """

    number: int
    key: str
    folder: str
    body: bytes
    rows_in: int
    published: tuple[str, ...]
    quarantined: int
    dropped: int
    rejected: bool


def soak_files(seed: int, count: int) -> Iterator[SoakFile]:
    """Generate the files of a soak. The same seed always gives the same files."""
    dice = random.Random(f"files {seed}")
    keys: list[tuple[str, str]] = []
    for number in range(1, count + 1):
        if keys and dice.random() < _REUPLOADS:
            folder, key = dice.choice(keys[-200:])
        else:
            folder = dice.choices((READINGS, EVENTS, MISC), (6, 2, 2))[0]
            key = f"incoming/{folder}/{dice.choice(_ODD_NAMES)}-{number}.csv"
            keys.append((folder, key))
        yield _file(dice, number, folder, key)


def _file(dice: random.Random, number: int, folder: str, key: str) -> SoakFile:
    kind = dice.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
    if folder == MISC and kind in ("bad rows", "repeated rows", "too bad"):
        kind = "good"  # the default contract does not validate values
    ids = [f"{number}-{place}" for place in range(dice.randint(1, 4))]
    good = [f"{each},{dice.randint(0, 100)}" for each in ids]
    rows, quarantined, dropped = list(good), 0, 0
    if kind == "bad rows":
        quarantined = dice.randint(1, len(good))  # at most half of the file
        rows += [f"{number}-bad-{place},{dice.choice(('1000', 'many'))}" for place in range(quarantined)]
    elif kind == "repeated rows":
        dropped = dice.randint(1, 2)
        rows += [good[-1]] * dropped
    elif kind == "too bad":
        rows += [f"{number}-bad-{place},-1" for place in range(len(good) + 1)]
    body = "\n".join(["id,value", *rows, ""]).encode()
    if kind == "no rows":
        body = b"id,value\n"
    elif kind in ("empty", "not text"):
        body = b"" if kind == "empty" else b"\x80\x04\x95" + bytes(range(256))
    unread = kind in ("no rows", "empty", "not text")
    rejected = unread or kind == "too bad"
    return SoakFile(
        number=number,
        key=key,
        folder=folder,
        body=body,
        rows_in=0 if unread else len(rows),
        published=() if rejected else tuple(ids),
        quarantined=0 if rejected else quarantined,
        dropped=0 if unread else len(rows) if rejected else dropped,
        rejected=rejected,
    )


def write_contracts(folder: Path, *, compression: str) -> Path:
    """Write the soak's contracts to a folder, and return the folder.

    Contracts with different `compression` simulate a release: workers that use different ones publish different bytes
    for the same upload.
    """
    for dataset, on_reupload in ((READINGS, "replace"), (EVENTS, "append")):
        text = _CONTRACT.format(dataset=dataset, on_reupload=on_reupload, compression=compression)
        _write(folder / dataset, text)
    _write(folder / DEFAULT, _DEFAULT_CONTRACT.format(compression=compression))
    return folder


def _write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "contract.yaml").write_text(text)
