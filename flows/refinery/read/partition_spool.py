"""Store partitions until they are needed: in memory up to a total size, then on local disk."""

import pickle
from collections.abc import Iterator
from pathlib import Path

from flows.refinery.read.partition import Partition

_IN_MEMORY_BYTES = 64 << 20


class PartitionSpool:
    """Stores partitions, and yields them in the order in which they were added.

    Args:
        path: the file for partitions that exceed the memory limit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._in_memory: list[Partition] = []
        self._bytes = self._on_disk = 0

    def append(self, partition: Partition) -> None:
        self._bytes += int(partition.frame.memory_usage(deep=True).sum())
        if not self._on_disk and self._bytes <= _IN_MEMORY_BYTES:
            self._in_memory.append(partition)
            return
        with self._path.open("ab") as file:
            pickle.dump(partition, file, pickle.HIGHEST_PROTOCOL)
        self._on_disk += 1

    def drain(self) -> Iterator[Partition]:
        """Yield each partition once, and release it if it is in memory."""
        self._in_memory.reverse()
        while self._in_memory:
            yield self._in_memory.pop()
        if self._on_disk:
            with self._path.open("rb") as file:
                for _ in range(self._on_disk):
                    yield pickle.load(file)  # noqa: S301 written above

    def close(self) -> None:
        self._in_memory.clear()
        self._path.unlink(missing_ok=True)
