"""A file that is read from S3 in ranges gives the same partitions as its copy on the disk."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from blocks.aws_errors import AwsRefused, AwsUnavailable
from blocks.object_store import ObjectGone
from flows.refinery.contract.model import Contract
from flows.refinery.read import remote_file
from flows.refinery.read.formats import read_partitions
from flows.refinery.read.remote_file import RemoteFile

ROWS = pd.DataFrame({"id": range(2_000), "name": [f"näme {number}" for number in range(2_000)]})


def _parquet(names: Sequence[str]) -> bytes:
    sink = io.BytesIO()
    pd.DataFrame({"id": range(len(names)), "name": names}).to_parquet(sink, row_group_size=300)
    return sink.getvalue()


def _xlsx() -> bytes:
    sink = io.BytesIO()
    ROWS.to_excel(sink, index=False)
    return sink.getvalue()


CSV = ROWS.to_csv(index=False).encode()
FILES = {
    "csv": CSV,
    "csv in utf-16": CSV.decode().encode("utf-16"),
    "gzip": gzip.compress(CSV),
    "zstd": pa.compress(CSV, codec="zstd", asbytes=True),
    "json lines": "\n".join(json.dumps(row) for row in ROWS.to_dict("records")).encode(),
    "parquet": _parquet(ROWS["name"].to_list()),
    "xlsx": _xlsx(),
}


def _range_of(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _fails_later(path: Path, error: Exception, offset: int, size: int) -> bytes:
    """Read a range of the file, but raise `error` for every range after the first block."""
    if offset:
        raise error
    return _range_of(path, offset, size)


def _remote(path: Path) -> RemoteFile:
    return RemoteFile(path.stat().st_size, path.parent, partial(_range_of, path))


@pytest.mark.parametrize("name", FILES)
def test_a_remote_file_is_read_like_its_copy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "_BLOCK_BYTES", 1_000)
    path, contract = tmp_path / "upload", Contract(dataset="x")
    path.write_bytes(FILES[name])
    copy = [partition.frame for partition in read_partitions(path, contract, rows_per_partition=700)]
    asked = []

    def read_range(offset: int, size: int) -> bytes:  # cannot be pickled, so that only this process can read the object
        asked.append(size)
        return _range_of(path, offset, size)

    file = RemoteFile(path.stat().st_size, path.parent, read_range)
    remote = [partition.frame for partition in read_partitions(file, contract, rows_per_partition=700)]
    pd.testing.assert_frame_equal(pd.concat(remote), pd.concat(copy))
    assert max(asked) <= 1_000
    assert len(pd.concat(remote)) == len(ROWS)


@pytest.mark.parametrize("name", ["csv", "zstd", "parquet"])
@pytest.mark.parametrize("error", [AwsUnavailable("S3 is away"), AwsRefused("no"), ObjectGone("deleted meanwhile")])
def test_an_error_of_the_storage_is_raised_unchanged(
    error: Exception, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_file, "_BLOCK_BYTES", 100_000)
    texts = [os.urandom(20).hex() for _ in range(20_000)]
    noise = "\n".join(texts).encode()
    large = {"csv": noise, "zstd": pa.compress(noise, codec="zstd", asbytes=True), "parquet": _parquet(texts)}
    content = large[name]
    (tmp_path / "upload").write_bytes(content)
    remote = RemoteFile(len(content), tmp_path, partial(_fails_later, tmp_path / "upload", error))
    with pytest.raises(type(error)):
        list(read_partitions(remote, Contract(dataset="x")))


def test_any_place_can_be_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "_BLOCK_BYTES", 7)
    path, content = tmp_path / "upload", bytes(range(200))
    path.write_bytes(content)
    with _remote(path).open() as file:
        for start, size in ((190, 50), (0, 20), (20, 100), (50, 1), (3, 0), (0, 200)):
            file.seek(start)
            assert file.read(size) == content[start : start + size]
        file.seek(-5, 2)
        assert (file.read(), file.tell()) == (content[-5:], 200)
