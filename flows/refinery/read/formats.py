"""Detect a file's format, and read it into partitions of rows with the reader for that format."""

from collections.abc import Iterator

from flows.refinery.contract.model import Contract
from flows.refinery.read.byte_source import HEAD_BYTES, ByteSource, open_bytes
from flows.refinery.read.csv_reader import read_csv
from flows.refinery.read.detection import TableType, detect
from flows.refinery.read.header import require_free_names
from flows.refinery.read.json_reader import read_json, read_json_lines
from flows.refinery.read.parquet_partitions import parquet_partitions
from flows.refinery.read.partition import Limits, Partition
from flows.refinery.read.reader_process import read_apart
from flows.refinery.read.remote_file import Source
from flows.refinery.read.text_source import TextSource
from flows.refinery.read.xlsx_reader import read_xlsx

ROWS_PER_PARTITION = 250_000


def read_partitions(
    file: Source,
    contract: Contract,
    *,
    rows_per_partition: int = ROWS_PER_PARTITION,
    limits: Limits = Limits(),
) -> Iterator[Partition]:
    """Read a file in partitions of at most `rows_per_partition` rows. Only a workbook is held in memory as a whole.

    There is at least one partition: a table without rows gives an empty partition with its columns.

    Raises:
        FileRejected: the file cannot be read as a table; rejections.py has one subclass per cause.
        OSError: the file cannot be opened or read.
    """
    for partition in _read(file, contract, rows_per_partition, limits):
        require_free_names(partition.frame.columns)
        yield partition


def _read(file: Source, contract: Contract, rows_per_partition: int, limits: Limits) -> Iterator[Partition]:
    with open_bytes(file, limits) as source:
        found = _detected(source, contract)
        if found not in ("parquet", "xlsx"):
            yield from _read_text(source, found, contract, rows_per_partition, limits)
            return
    if found == "parquet":
        yield from parquet_partitions(file, rows_per_partition, limits)
    else:
        yield from read_apart(_read_workbook, file, contract, rows_per_partition, limits)


def _detected(source: ByteSource, contract: Contract) -> TableType:
    given = contract.format
    return detect(
        source.head,
        declared=given.type,
        is_whole=len(source.head) < HEAD_BYTES,
        encoding=given.encoding,
        delimiter=given.delimiter,
    )


def _read_text(
    source: ByteSource, found: TableType, contract: Contract, rows_per_partition: int, limits: Limits
) -> Iterator[Partition]:
    given = contract.format
    read = {"csv": read_csv, "json": read_json, "jsonl": read_json if given.records_path else read_json_lines}[found]
    return read(TextSource(source, given.encoding), contract, rows_per_partition, limits, source.compression)


def _read_workbook(file: Source, contract: Contract, rows_per_partition: int, limits: Limits) -> Iterator[Partition]:
    with open_bytes(file, limits) as source, source.as_file(limits.max_workbook_bytes) as unpacked:
        yield from read_xlsx(unpacked, contract, rows_per_partition, limits, source.compression)
