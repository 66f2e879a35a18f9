"""A file whose reader has too little memory."""

from __future__ import annotations

import io
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.pipeline.receipt import Status
from flows.refinery.read import reader_process
from flows.refinery.read.partition import Partition
from tests.unit.flows.conftest import Account

MEGABYTE = 1 << 20


def a_parquet(rows: int) -> bytes:
    sink = io.BytesIO()
    numbers = np.random.default_rng(1).random(rows)
    pq.write_table(pa.table({f"n{column}": numbers for column in range(30)}), sink, use_dictionary=False)
    return sink.getvalue()


@pytest.fixture
def little_memory(tmp_path: Path) -> Iterator[None]:
    """Readers that may take 16 MB more than their server."""
    list(reader_process.read_apart(no_partition, tmp_path))  # starts the server
    server = reader_process._SERVER
    assert server._process
    pages = int(Path(f"/proc/{server._process.pid}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 16 * MEGABYTE
    resource.prlimit(server._process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    yield
    server.stop()


def no_partition(_path: Path) -> Iterator[Partition]:
    yield from ()


def test_a_file_that_kills_its_reader_is_rejected_with_a_receipt(account: Account, little_memory: None) -> None:
    upload = account.upload("incoming/other/large.parquet", a_parquet(250_000))
    receipt = account.process(upload)
    assert receipt.status is Status.REJECTED
    assert [(reason.code, reason.part) for reason in receipt.reasons] == [("reader_killed", "read")]
    assert str(upload.size_bytes) in receipt.reason
    assert account.receipt(upload) == receipt


def test_the_next_file_is_read_after_one_that_killed_its_reader(account: Account, little_memory: None) -> None:
    account.process(account.upload("incoming/other/large.parquet", a_parquet(250_000)))
    reader_process._SERVER.stop()
    assert account.process(account.upload("incoming/other/small.parquet", a_parquet(10))).status is Status.PUBLISHED
