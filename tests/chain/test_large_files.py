"""Tests of large files, which are downloaded in ranges and uploaded in parts, in the whole pipeline."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.pipeline.receipt import Status
from tests.chain.chain import Chain

pytestmark = pytest.mark.cloud

MIB = 1024**2
_BLOCK_ROWS = 1024
_TEXTS = [random.Random(row).randbytes(508).hex() for row in range(_BLOCK_ROWS)]  # about a MiB, and hardly compressible


def csv_of(size_mib: int) -> bytes:
    block = "".join(f"{row},{text}\n" for row, text in enumerate(_TEXTS))
    return ("id,note\n" + block * size_mib).encode()


def json_lines_of(size_mib: int) -> bytes:
    block = "".join(json.dumps({"id": row, "note": text}) + "\n" for row, text in enumerate(_TEXTS))
    return (block * size_mib).encode()


def parquet_of(size_mib: int) -> bytes:
    block = pa.table({"id": range(_BLOCK_ROWS), "note": _TEXTS})
    file = io.BytesIO()
    with pq.ParquetWriter(file, block.schema, compression="none", use_dictionary=False) as writer:
        for _ in range(size_mib // 4):
            writer.write_table(pa.concat_tables([block] * 4), row_group_size=4 * _BLOCK_ROWS)
    return file.getvalue()


_FORMATS = {"csv": csv_of, "jsonl": json_lines_of, "parquet": parquet_of}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", _FORMATS.values(), ids=_FORMATS)
@pytest.mark.parametrize("size_mib", [20, 100, pytest.param(500, marks=pytest.mark.slow)])
def test_a_large_file_is_published_completely(chain: Chain, size_mib: int, make: Callable[[int], bytes]) -> None:
    name = next(name for name, maker in _FORMATS.items() if maker is make)
    body = make(size_mib)
    assert len(body) >= size_mib * MIB * 0.98
    upload = chain.upload(f"incoming/large/{size_mib}.{name}", body)
    assert chain.done(upload, seconds=max(90, size_mib)).status is Status.PUBLISHED
    receipt = chain.receipt(upload)
    assert receipt.status is Status.PUBLISHED
    assert receipt.source.size_bytes == len(body)
    assert (receipt.rows.rows_in, receipt.rows.published) == (size_mib * _BLOCK_ROWS,) * 2
    assert receipt.chain.receive_count == 1
    chain.remove(upload, receipt)
