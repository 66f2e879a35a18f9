"""Read the rows of a dataset's current outputs, combined by column name. The outputs are downloaded to a temporary
folder and read from there in batches, so that memory is bounded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from blocks.at_once import at_once
from blocks.object_store import ObjectGone, ObjectStore
from flows.pipeline.receipt import Output, Receipt
from flows.published.current import CurrentFile, RunNotCurrent, current_file, current_files, file_of_run
from flows.published.schemas import ColumnsDiffer, SchemaOfRun, joined_schema

RUN_ID, SOURCE_KEY = "_sluice_run_id", "_sluice_source_key"
_BATCH_ROWS = 65_536
_TRIES = 5  # a file may be replaced while it is fetched
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_EMPTY = pa.schema([])


@dataclass(frozen=True)
class Selection:
    """Which rows of a dataset to read."""

    run: str | None = None  # a run ID, or its first 8 or more characters; None for all current runs
    quarantine: bool = False  # whether to read the rows in quarantine instead of the published rows
    with_source: bool = False  # whether to add the columns `_sluice_run_id` and `_sluice_source_key`
    limit: int | None = None  # the maximum number of rows; None for all

    @property
    def kind(self) -> str:
        """Return the kind of output that contains the selected rows: `data` or `quarantine`."""
        return "quarantine" if self.quarantine else "data"

    @property
    def source_columns(self) -> SchemaOfRun:
        """Return the columns that `with_source` adds. Without `with_source`, return no columns."""
        return SchemaOfRun("", pa.schema([(name, pa.string()) for name in self.with_source * (RUN_ID, SOURCE_KEY)]))

    def outputs(self, file: CurrentFile) -> list[tuple[Receipt, Output]]:
        return [
            (receipt, output) for receipt in file.receipts for output in receipt.outputs if output.kind == self.kind
        ]

    def rows_of(self, file: CurrentFile) -> int:
        return sum(output.rows for _, output in self.outputs(file))


@dataclass
class PublishedRows:
    """The selected rows of a dataset, downloaded and ready to be read."""

    dataset: str  # the dataset's name
    rows: int  # the number of selected rows according to the receipts, before the limit is applied
    files: int  # the number of files that they come from
    unreadable: dict[str, str]  # by S3 URI, why an object could not be read; its rows are missing
    expired: int = 0  # the number of files with rows that have expired
    kept_days: int | None = None  # the number of days after which rows expire; None if never or unknown
    schema: pa.Schema = _EMPTY  # the columns of all rows
    _parts: list[_Part] = field(default_factory=list)
    _limit: int | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches, up to the limit. Files are sorted by source key, and rows keep the order of their
        output. Raise ColumnsDiffer if a number does not fit into the type that its column has in all runs together."""
        left = self.rows if self._limit is None else self._limit
        for part in self._parts:
            for batch in part.batches(self.dataset, self.schema):
                if left <= 0:
                    return
                yield batch.slice(0, left)
                left -= batch.num_rows

    def table(self) -> pa.Table:
        return pa.Table.from_batches(self.batches(), self.schema)


@contextmanager
def published_rows(store: ObjectStore, dataset: str, selection: Selection = Selection()) -> Iterator[PublishedRows]:
    """Download the current rows of a dataset to a temporary folder, which exists until the `with` block ends.

    Raises:
        NothingProcessed: no file of the dataset has been processed.
        RunUnknown: there is no such run, or several run IDs begin with these characters.
        RunNotCurrent: the selected run has no rows to read.
        ReceiptUnreadable: this release cannot read the selected run's receipt.
        ColumnsDiffer: a column's types in different runs cannot be combined, or a name is taken by a source column.
    """
    run = selection.run
    files = current_files(store, dataset) if run is None else [file_of_run(store, dataset, run)]
    kept = _Kept(selection.kind, store.kept_days(f"{selection.kind}/{dataset}/"))
    expired = sum(map(kept.leave, files))
    if run is not None and expired:
        raise RunNotCurrent(f"the rows of run {run} have expired: {kept.kind}/{dataset}/ is kept for {kept.days} days")
    with tempfile.TemporaryDirectory(prefix="sluice-read-") as folder:
        fetch = _Fetch(store, dataset, selection, kept, Path(folder))
        parts = [part for found in at_once(fetch.parts_of, _needed(files, selection)) for part in found]
        yield PublishedRows(
            dataset=dataset,
            rows=sum(map(selection.rows_of, files)),
            files=sum(bool(selection.outputs(file)) for file in files),
            unreadable={address: why for file in files for address, why in file.unreadable.items()},
            expired=expired,
            kept_days=kept.days,
            schema=joined_schema(dataset, [*(part.schema_of_run for part in parts), selection.source_columns]),
            _parts=parts,
            _limit=selection.limit,
        )


def _needed(files: Sequence[CurrentFile], selection: Selection) -> Iterator[CurrentFile]:
    """Yield files until together they have as many rows as the selection's limit, or all files if it has no limit."""
    rows = 0
    for file in files:
        if selection.limit is not None and rows >= selection.limit:
            return
        rows += selection.rows_of(file)
        yield file


@dataclass(frozen=True)
class _Kept:
    """How long outputs of one kind are kept. S3 may delete them later, but readers skip them as soon as they expire."""

    kind: str
    days: int | None

    def leave(self, file: CurrentFile) -> bool:
        """Remove from `file.receipts` the receipts whose outputs have expired. Return whether any of these had outputs
        of the kind `self.kind`."""
        if self.days is None:
            return False
        oldest = (datetime.now(UTC) - timedelta(days=self.days)).isoformat()
        had = [receipt for receipt in file.receipts if any(output.kind == self.kind for output in receipt.outputs)]
        file.receipts = tuple(receipt for receipt in file.receipts if receipt.created_at > oldest)
        return any(receipt not in file.receipts for receipt in had)


class _Fetch:
    """Downloads the output files of uploads to a local folder."""

    def __init__(self, store: ObjectStore, dataset: str, selection: Selection, kept: _Kept, folder: Path) -> None:
        self._store, self._dataset, self._selection, self._kept = store, dataset, selection, kept
        self._folder = folder
        self._numbers = count()

    def parts_of(self, file: CurrentFile) -> list[_Part]:
        """Download a file's outputs. If they were replaced in the meantime, download the new ones, unless a run is
        selected. If an output does not exist, add all of them to `file.unreadable`, and return an empty list."""
        for _ in range(_TRIES):
            outputs = self._selection.outputs(file)
            try:
                return [self._part(receipt, output) for receipt, output in outputs]
            except ObjectGone:
                now = current_file(self._store, self._dataset, file.index_key)
                self._kept.leave(now)
                if self._selection.run is not None or self._selection.outputs(now) == outputs:
                    break
                file.receipts = now.receipts
        for _, output in self._selection.outputs(file):
            file.unreadable[self._store.published_address(output.key)] = "its receipt names it, but it does not exist"
        return []

    def _part(self, receipt: Receipt, output: Output) -> _Part:
        path = self._folder / f"{next(self._numbers)}{Path(output.key).suffix}"
        self._store.download(self._store.published_bucket, output.key, path)
        constants = _folder_values(output.key) if output.kind == "data" else {}
        if self._selection.with_source:
            constants |= {RUN_ID: receipt.run_id, SOURCE_KEY: receipt.source.key}
        return _Part(path, receipt.run_id, output.key.partition(".csv")[1] != "", constants)


@dataclass(frozen=True)
class _Part:
    """One downloaded output file."""

    path: Path
    run_id: str
    is_csv: bool
    constants: dict[str, str | None]  # columns that are not in the file: from the folders in its key, and its source

    @property
    def schema_of_run(self) -> SchemaOfRun:
        """Return the output's columns. A string column known to have no values has type null, which fits any type."""
        names = pa.schema([(name, pa.string()) for name in self.constants])
        if self.is_csv:
            return SchemaOfRun(self.run_id, _with(self._csv_schema(), names))
        with pq.ParquetFile(self.path) as file:
            schema = file.schema_arrow.remove_metadata()
            for place in _columns_without_values(file.metadata, schema):
                schema = schema.set(place, schema.field(place).with_type(pa.null()))
            return SchemaOfRun(self.run_id, _with(schema, names))

    def batches(self, dataset: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the output's rows with the columns of `schema`."""
        for batch in self._csv_batches() if self.is_csv else self._parquet_batches():
            yield pa.record_batch([self._column(dataset, batch, each) for each in schema], schema)

    def _column(self, dataset: str, batch: pa.RecordBatch, wanted: pa.Field) -> pa.Array:
        if wanted.name in self.constants:
            return pa.repeat(pa.scalar(self.constants[wanted.name], pa.string()), batch.num_rows)
        if wanted.name not in batch.schema.names:
            return pa.nulls(batch.num_rows, wanted.type)
        column = batch.column(wanted.name)
        if column.null_count == len(column):
            return pa.nulls(len(column), wanted.type)
        try:
            return column.cast(wanted.type)
        except pa.ArrowInvalid:
            raise ColumnsDiffer(
                f"dataset {dataset}: a number in column {wanted.name!r} of run {self.run_id} does not fit into"
                f" {wanted.type}, the column's common type in all runs; read this run alone"
            ) from None

    def _parquet_batches(self) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path, pre_buffer=False) as file:  # what is read ahead would stay in memory
            yield from file.iter_batches(_BATCH_ROWS)

    def _csv_batches(self) -> Iterator[pa.RecordBatch]:
        yield from self._open_csv(self._csv_schema()) if len(self._csv_schema()) else ()

    def _csv_schema(self) -> pa.Schema:
        try:
            names = self._open_csv(_EMPTY).schema.names
        except pa.ArrowInvalid:  # a file without columns
            return _EMPTY
        return pa.schema([(name, pa.string()) for name in names])

    def _open_csv(self, schema: pa.Schema) -> pa_csv.CSVStreamingReader:
        """Open a published CSV file. The columns in `schema` are read as strings, because CSV has no types."""
        source = pa.input_stream(str(self.path), compression=_COMPRESSIONS.get(self.path.suffix))
        return pa_csv.open_csv(
            source,
            # In a file with a single column, an empty line is a missing value.
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(
                column_types=schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )


def _with(schema: pa.Schema, more: pa.Schema) -> pa.Schema:
    if taken := set(schema.names) & set(more.names):
        raise ColumnsDiffer(f"the data itself has the column {min(taken)!r}; read it without the source columns")
    return pa.schema([*schema, *more])


def _columns_without_values(metadata: pq.FileMetaData, schema: pa.Schema) -> list[int]:
    """Return the positions of the string columns that have no values, according to their statistics. Return none if
    there are nested columns."""
    if len(schema) != metadata.num_columns:  # a nested column has several positions in the metadata
        return []
    return [
        place
        for place, each in enumerate(schema)
        if pa.types.is_string(each.type)
        and all(_has_no_value(metadata.row_group(group), place) for group in range(metadata.num_row_groups))
    ]


def _has_no_value(group: pq.RowGroupMetaData, place: int) -> bool:
    statistics = group.column(place).statistics
    return statistics is not None and statistics.has_null_count and statistics.null_count == group.num_rows


def _folder_values(key: str) -> dict[str, str | None]:
    """Return the columns that `output.partition_by` wrote into the folders of an output's key (name=value), with their
    values."""
    parts = (folder.partition("=") for folder in key.split("/")[:-1])
    return {unquote(name): _folder_value(value) for name, mark, value in parts if mark}


def _folder_value(label: str) -> str | None:
    return None if label == _NO_VALUE else "" if label == "%00" else unquote(label)
