"""Local output files, which are written one Arrow table at a time. The same tables always give the same bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from flows.refinery.contract.model import OutputOptions
from flows.refinery.validate.parquet_file import parquet_writer

WAITING_BYTES = 4 << 20
"""How many bytes of small tables wait before they are written together. Each write adds about 1 KB for each column to a
Parquet file's footer, which is in memory until the file is finished."""

_READ_BYTES = 1 << 20
_EXTENSIONS = {"zstd": ".zst", "gzip": ".gz", "none": ""}


@dataclass(frozen=True)
class OutputFile:
    """A finished output file. It is on the local disk unless a `TakeAway` has deleted it."""

    path: Path
    folder: str  # "" or the folders that its rows belong to, such as "country=DE/"
    rows: int
    size_bytes: int
    sha256: str  # in hexadecimal
    extension: str  # such as ".parquet", or ".1.parquet" for the second file in a folder


class TakeAway:
    """Receives output files that are finished early, because they are full or to free disk space. This base class
    leaves them on the disk."""

    def take(self, kind: str, file: OutputFile) -> None:
        """Receive a finished file of the kind `data` or `quarantine`. An implementation may delete the file, but must
        not make it visible to readers, because the upload may still be rejected. Several threads may call this method
        concurrently."""

    def abandon(self) -> None:
        """Make running calls of `take` return soon, because no file will be published."""


LEAVE = TakeAway()


def output_file(path: Path, folder: str, rows: int, extension: str) -> OutputFile:
    """Return the description of a finished file, including its size and hash."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return OutputFile(path, folder, rows, path.stat().st_size, digest.hexdigest(), extension)


class FileSeries:
    """The Parquet or CSV files that are written to one output folder. When a file is full, the next table starts a new
    file.

    Args:
        kind: `data` or `quarantine`.
        stem: the path of the files, without their numbers and extension.
        folder: the output folder, as in `OutputFile`.
        take_away: receives each file that is full, and each file that `hand_over` finishes.
    """

    def __init__(self, kind: str, stem: Path, folder: str, output: OutputOptions, take_away: TakeAway) -> None:
        self._kind, self._stem, self._folder, self._output = kind, stem, folder, output
        self._take_away = take_away
        self._open: _OpenFile | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._finished: list[OutputFile] = []

    @property
    def open_bytes(self) -> int:
        """Return how many bytes of the unfinished file are on the disk, or 0 if there is no such file."""
        return self._open.path.stat().st_size if self._open else 0

    def write(self, table: pa.Table, waiting_bytes: int = WAITING_BYTES) -> None:
        """Write a table to the current file, or to a new file if there is no current file. An empty table starts only
        the first file. Tables wait in memory until their total size is `waiting_bytes`."""
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= min(waiting_bytes, self._output.max_file_bytes):
            self._write_waiting()
            if self.open_bytes >= self._output.max_file_bytes:
                self.hand_over()

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if self._open is None:
            if self._finished and not table.num_rows:
                return
            self._open = _OpenFile(
                self._stem.with_name(f"{self._stem.name}-{len(self._finished)}"), table, self._output
            )
        self._open.write(table)

    def hand_over(self) -> None:
        """Finish the current file, including waiting tables, and pass it to `take_away`. There must be such a file or
        table."""
        self._write_waiting()
        self._take_away.take(self._kind, self._finish())

    def finish(self) -> tuple[OutputFile, ...]:
        """Finish the current file, if there is one, and return all finished files. May be called more than once."""
        self._write_waiting()
        if self._open:
            self._finish()
        return tuple(self._finished)

    def close(self) -> None:
        """Stop writing. An unfinished file stays on disk. May be called more than once."""
        if self._open:
            self._open.close()
            self._open = None

    def discard(self) -> None:
        """Stop writing, and delete the files that are on the disk."""
        paths = [file.path for file in self._finished] + ([self._open.path] if self._open else [])
        self.close()
        for path in paths:
            path.unlink(missing_ok=True)

    def _finish(self) -> OutputFile:
        assert self._open is not None  # noqa: S101 for the type checker
        self._open.close()
        number = f".{len(self._finished)}" if self._finished else ""
        path, rows = self._open.path, self._open.rows
        extension, self._open = number + self._open.extension, None
        self._finished.append(output_file(path, self._folder, rows, extension))
        return self._finished[-1]


class _OpenFile:
    """A Parquet or CSV file to which tables are still being written."""

    def __init__(self, path: Path, first: pa.Table, output: OutputOptions) -> None:
        self.path, self.rows = path, 0
        self._sink: Any = None
        compression = output.effective_compression
        if output.format == "parquet":
            self.extension = ".parquet"
            self._writer = parquet_writer(path, first, compression)
            return
        self.extension = f".csv{_EXTENSIONS[compression]}"
        self._sink = pa.output_stream(str(path), compression=None if compression == "none" else compression)
        self._writer = pa_csv.CSVWriter(self._sink, first.schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)
        self.rows += table.num_rows

    def close(self) -> None:
        self._writer.close()
        if self._sink is not None:
            self._sink.close()
