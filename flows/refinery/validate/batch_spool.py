"""Store record batches until they are needed. They stay in memory up to a total size; each further batch is written to
an Arrow file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from flows.refinery.read import partition_spool


class BatchSpool:
    """Stores record batches, and returns them in the order in which they were added. Their schemas may differ.

    Args:
        folder: where batches beyond the memory limit are stored.
        memory_bytes: the maximum total size of the batches in memory.
    """

    def __init__(self, folder: Path, *, memory_bytes: int) -> None:
        self._folder, self._memory_bytes = folder, memory_bytes
        self._batches: list[pa.RecordBatch | Path] = []
        self.rows = 0

    def append(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        self._memory_bytes -= batch.nbytes
        if self._memory_bytes >= 0:
            self._batches.append(batch)
            return
        self._folder.mkdir(exist_ok=True)
        is_compressed = self._memory_bytes < -partition_spool.UNCOMPRESSED_BYTES
        options = pa.ipc.IpcWriteOptions(compression="lz4" if is_compressed else None)
        path = self._folder / f"{len(self._batches):06d}.arrow"
        with pa.ipc.new_file(str(path), batch.schema, options=options) as file:
            file.write_batch(batch)
        self._batches.append(path)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all batches."""
        for batch in self._batches:
            yield _read(batch) if isinstance(batch, Path) else batch

    def columns(self, places: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """Yield all batches with only the columns at the given positions. Other columns are not read from disk."""
        for batch in self._batches:
            yield _read(batch, places) if isinstance(batch, Path) else batch.select(places)

    def drain(self) -> Iterator[pa.RecordBatch]:
        """Yield each batch, and delete it from the spool."""
        self._batches.reverse()
        while self._batches:
            batch = self._batches.pop()
            if isinstance(batch, Path):
                read = _read(batch)
                batch.unlink()
                batch = read
            yield batch

    def close(self) -> None:
        """Delete all batches and their files."""
        for batch in self._batches:
            if isinstance(batch, Path):
                batch.unlink(missing_ok=True)
        self._batches.clear()


def _read(path: Path, places: Sequence[int] | None = None) -> pa.RecordBatch:
    options = pa.ipc.IpcReadOptions(included_fields=None if places is None else list(places))
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file, options=options).get_batch(0)
