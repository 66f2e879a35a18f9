"""Duplicates are found exactly, even if not all hashes fit in memory and some hashes collide."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.refinery.validate import uniqueness
from flows.refinery.validate.uniqueness import HashCollector, Rows, duplicated_rows

_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def _taken(keys: np.ndarray, first_row: int, places: np.ndarray) -> Rows:
    return pd.DataFrame({"key": keys[places]}), first_row + places


@pytest.mark.heavy
@given(
    partitions=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=8),
    keep=st.sampled_from(["first", "last", False]),
    in_memory=st.sampled_from([0, 5, 1000]),
    at_once=st.sampled_from([1, 4, 1000]),
    hashes=st.sampled_from([7, 1 << 40]),
)
def test_the_duplicates_are_those_that_pandas_finds_in_memory(
    partitions: list[list[int]],
    keep: Literal["first", "last", False],
    in_memory: int,
    at_once: int,
    hashes: int,
) -> None:
    arrays = [np.array(keys, dtype=np.int64) for keys in partitions]
    starts = np.cumsum([0, *map(len, arrays)])
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr(uniqueness, "_IN_MEMORY", in_memory)
        patch.setattr(uniqueness, "_CONFIRMED_AT_ONCE", at_once)
        patch.setattr(uniqueness, "_BUCKETS", 4)  # by the first two bits, because each bucket is a file
        patch.setattr(uniqueness, "_FIRST_BYTE", np.uint64(62))
        collector = HashCollector(Path(name) / "hashes")
        for keys in arrays:
            collector.add((keys % hashes).astype(np.uint64) * _SPREAD)  # with 7 hashes, many keys collide
        took = [partial(_taken, keys, start) for keys, start in zip(arrays, starts.tolist(), strict=False)]
        rows = duplicated_rows(collector, lambda: took, keep)
        assert list(Path(name).iterdir()) == []
    expected = pd.Series(np.concatenate([np.empty(0, dtype=np.int64), *arrays])).duplicated(keep=keep)
    assert rows.tolist() == np.flatnonzero(expected).tolist()


def test_hashes_beyond_the_bound_are_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniqueness, "_IN_MEMORY", 1000)
    collector = HashCollector(tmp_path / "hashes")
    random = np.random.default_rng(1)
    added = [random.integers(0, 1 << 63, 400, dtype=np.uint64) * np.uint64(2) for _ in range(50)]
    for number, hashes in enumerate(added, start=1):
        collector.add(hashes)
        all_of_them = tmp_path / "hashes" / "all"
        on_disk = all_of_them.stat().st_size if all_of_them.exists() else 0
        assert number * 400 - on_disk / 8 <= 1000
    assert [rows for _, rows in collector.repeated()] == [0]
    assert np.array_equal(np.concatenate(list(collector.partitions())), np.concatenate(added))
    assert sum(path.stat().st_size for path in (tmp_path / "hashes").iterdir()) == 2 * 8 * 50 * 400
