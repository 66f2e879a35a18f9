"""Files are read in a separate process, so that the task survives if the reader crashes or is killed."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.refinery.read.reader_process import memory_bytes, read_apart
from flows.refinery.read.rejections import ParquetBroken, ReaderKilled

READ_APART: Any = read_apart  # Any, because the readers in these tests yield numbers


def three(path: Path) -> Iterator[Any]:
    yield from (1, 2, os.getpid())


def killed_always(path: Path) -> Iterator[Any]:
    yield 1
    os.kill(os.getpid(), signal.SIGKILL)


def killed_once(path: Path) -> Iterator[Any]:
    yield from (1, 2)
    if not path.read_text():
        path.write_text("was here")
        os.kill(os.getpid(), signal.SIGKILL)
    yield from (3, 4)


def aborts(path: Path) -> Iterator[Any]:
    yield 1
    os.abort()


def takes_all_memory(path: Path) -> Iterator[Any]:
    yield 1
    yield len(bytearray(2 * memory_bytes() + (4 << 30)))


def refuses(path: Path) -> Iterator[Any]:
    yield 1
    raise ParquetBroken("for a reason")


class Payload:
    """A pickle that calls `call` when it is loaded, as a reader might send it if a malicious file controlled it."""

    def __init__(self, call: Any, *values: Any) -> None:
        self._reduced = (call, values)

    def __reduce__(self) -> Any:
        return self._reduced


def taken_over(path: Path, call: str) -> Iterator[Any]:
    yield 1
    module, _, name = call.rpartition(".")
    yield Payload(getattr(importlib.import_module(module), name), str(path))


def waits(path: Path) -> Iterator[Any]:
    yield os.getpid()
    time.sleep(600)  # the test kills this process long before that


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_text("")
    return path


@pytest.mark.parametrize("call", ["os.unlink", "builtins.eval", "builtins.getattr", "pandas.read_pickle", "numpy.load"])
def test_a_reader_cannot_make_the_task_call_anything(upload: Path, call: str) -> None:
    received = []
    with pytest.raises(ReaderKilled):
        received.extend(READ_APART(taken_over, upload, call))
    assert upload.exists()


def test_a_reader_is_another_process(upload: Path) -> None:
    first, second, pid = READ_APART(three, upload)
    assert (first, second) == (1, 2)
    assert pid != os.getpid()


@pytest.mark.parametrize("reader", [killed_always, aborts, takes_all_memory])
def test_a_file_that_ends_its_reader_twice_is_rejected(reader: Any, upload: Path) -> None:
    partitions = READ_APART(reader, upload)
    assert next(partitions) == 1
    with pytest.raises(ReaderKilled) as error:
        next(partitions)
    assert str(memory_bytes() >> 20) in str(error.value)


def test_a_reader_that_is_killed_once_is_replaced_and_no_partition_is_repeated(upload: Path) -> None:
    assert list(READ_APART(killed_once, upload)) == [1, 2, 3, 4]


def test_what_a_reader_raises_is_raised_in_the_task(upload: Path) -> None:
    partitions = READ_APART(refuses, upload)
    assert next(partitions) == 1
    with pytest.raises(ParquetBroken, match="for a reason"):
        next(partitions)


def test_a_reader_ends_when_its_partitions_are_closed(upload: Path) -> None:
    partitions = READ_APART(waits, upload)
    pid = next(partitions)
    partitions.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_process_that_reads_parquet_imports_only_what_it_needs() -> None:
    program = (
        "import sys, flows.refinery.read.parquet_reader, flows.refinery.read.reader_process as _; print(*sys.modules)"
    )
    imported = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "pyarrow.parquet" in imported
    assert not {"pandas", "pydantic", "boto3", "great_expectations"} & {*imported}


def test_readers_of_several_threads_do_not_disturb_each_other(upload: Path) -> None:
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append([*READ_APART(three, upload)][-1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(pids)) == 4
