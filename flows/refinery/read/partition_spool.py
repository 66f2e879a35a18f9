"""Store partitions until they are needed: in memory up to a total size, then on local disk."""

import pickle
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import pyarrow as pa

from flows.refinery.read.partition import Partition

UNCOMPRESSED_BYTES = 1 << 30
"""Rows that wait on the disk are compressed beyond this size. Writing compressed rows takes four times longer."""

_IN_MEMORY_BYTES = 64 << 20


class PartitionSpool:
    """Stores partitions, and yields them in the order in which they were added.

    Args:
        folder: where partitions that exceed the memory limit are stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partitions: list[Partition | Path] = []
        self._bytes = 0

    def append(self, partition: Partition) -> None:
        self._bytes += int(partition.frame.memory_usage(deep=True).sum())
        if self._bytes <= _IN_MEMORY_BYTES:
            self._partitions.append(partition)
            return
        self._folder.mkdir(exist_ok=True)
        extension = ".lz4" if self._bytes > _IN_MEMORY_BYTES + UNCOMPRESSED_BYTES else ""  # pyarrow compresses by it
        path = self._folder / f"{len(self._partitions):06d}{extension}"
        with pa.output_stream(str(path)) as file:
            pickle.dump(partition, file, pickle.HIGHEST_PROTOCOL)
        self._partitions.append(path)

    def drain(self) -> Iterator[Partition]:
        """Yield each partition, and delete it from the spool."""
        self._partitions.reverse()
        while self._partitions:
            yield _read(self._partitions.pop())

    def close(self) -> None:
        """Delete all partitions and their files."""
        for partition in self._partitions:
            if isinstance(partition, Path):
                partition.unlink(missing_ok=True)
        self._partitions.clear()


def _read(partition: Partition | Path) -> Partition:
    if isinstance(partition, Partition):
        return partition
    with BufferedReader(pa.input_stream(str(partition))) as file:
        read: Partition = pickle.load(file)  # noqa: S301 written above
    partition.unlink()
    return read
