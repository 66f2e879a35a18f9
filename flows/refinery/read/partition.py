"""The results of reading a file (partitions of rows, and rows that could not be decoded), and the limits on reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # the process that reads Parquet does not import pandas
    import pandas as pd

_MISFIT_RAW_BYTES = 1024
_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on everything whose size the uploader controls. A file that exceeds a limit is rejected and not read
    further, except that the last two limits only make partitions smaller.

    Attributes:
        max_file_bytes: size of the file as it was uploaded.
        max_expanded_bytes: size of the file after decompression; for Parquet, also the size of its columns
            according to the footer.
        max_expansion_ratio: ratio of expanded to uploaded bytes, checked above `expansion_grace_bytes`.
        expansion_grace_bytes: expanded bytes up to which any ratio is allowed.
        max_columns: number of columns of a table.
        max_record_bytes: size of one CSV record or header, JSON Lines line or JSON object; for Parquet, size of a row's
            fixed-size binary values.
        max_rows: number of rows of a table, including those that cannot be decoded.
        max_workbook_bytes: total size of an XLSX file's unpacked parts; a workbook is read as a whole.
        max_workbook_cells: rows times columns of an XLSX sheet; empty cells take memory, too.
        max_partition_cells: rows times columns of one partition.
        max_block_bytes: size of the text that is parsed in one step.
    """

    max_file_bytes: int = 64 * _GIB
    max_expanded_bytes: int = 256 * _GIB
    max_expansion_ratio: float = 300.0
    expansion_grace_bytes: int = 64 * _MIB
    max_columns: int = 10_000
    max_record_bytes: int = 16 * _MIB
    max_rows: int = 5_000_000_000
    max_workbook_bytes: int = 512 * _MIB
    max_workbook_cells: int = 20_000_000
    max_partition_cells: int = 20_000_000
    max_block_bytes: int = 8 * _MIB


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row that could not be decoded. It is quarantined."""

    row_number: int  # its position among the file's data rows, from 1
    reason: str  # why it could not be decoded, in snake_case
    raw: str  # its original text, at most 1 KiB; bytes that are not UTF-8 are backslash escapes
    line: int | None = None  # the line of the file on which it begins, from 1; None if the format has no lines

    @classmethod
    def of(cls, row_number: int, reason: str, text: str, line: int | None = None) -> Misfit:
        """Make a misfit from a row's text of any length, in which bytes that are not UTF-8 are surrogate escapes."""
        content = text[:_MISFIT_RAW_BYTES].encode("utf-8", errors="surrogateescape")
        clean = content.decode("utf-8", errors="backslashreplace").encode()[:_MISFIT_RAW_BYTES]
        return cls(row_number, reason, clean.decode("utf-8", errors="ignore"), line)


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """The format of a file, as declared by the contract or detected."""

    type: Literal["csv", "json", "jsonl", "parquet", "xlsx"]  # the file format
    compression: Literal["gzip", "zstd"] | None = None  # None if it is not compressed
    encoding: str | None = None  # None for binary formats
    delimiter: str | None = None  # between CSV fields; None for other formats
    is_delimiter_proven: bool = True  # whether the contract or the file shows the delimiter
    trailing_delimiters: int = 0  # the number of delimiters at the end of each CSV record that no value follows
    header_line: int | None = None  # the line of a CSV file on which the header begins, from 1; None without a header
    decimal: str = "."  # the separators in CSV numbers
    thousands: str | None = None
    # whether the contract or the file shows the decimal separator; if not, 1.250 is text in a column that the contract
    # does not name
    is_decimal_proven: bool = True
    sheet: str | None = None  # the sheet that was read; None for formats other than XLSX
    other_sheets: tuple[str, ...] = ()  # the workbook's other visible sheets
    merged_ranges: int = 0  # the number of merged ranges in the sheet
    # number formats in the workbook that show leading zeros, which the values do not have
    padding_formats: tuple[str, ...] = ()
    # why most rows of a CSV file do not fit its header, or the header does not fit the contract; None if they fit or if
    # the reason is uncertain
    layout_fault: str | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """Some consecutive rows of a file."""

    # the decoded rows, with a RangeIndex and the file's columns in their order. A CSV column has the file's strings. In
    # typed formats, a column with values of several types keeps them and has dtype object.
    frame: pd.DataFrame
    row_numbers: npt.NDArray[np.int64]  # for each row of the frame, its position among the file's data rows, from 1
    misfits: list[Misfit] = field(default_factory=list)  # the rows of the partition that could not be decoded
    # how the file is written; the same for all of its partitions
    source_format: SourceFormat = field(default_factory=lambda: SourceFormat(type="csv"))

    @property
    def rows_in(self) -> int:
        """Return the number of rows in this partition, decoded or not."""
        return len(self.frame) + len(self.misfits)

    def cut(self, rows: int) -> Iterator[Partition]:
        """Yield the partition in pieces of at most `rows` decoded rows. A misfit is in the piece with the next decoded
        row; misfits after the last row are in the last piece."""
        if len(self.frame) <= rows:
            yield self
            return
        left = self.misfits
        for start in range(0, max(1, len(self.frame)), rows):
            numbers = self.row_numbers[start : start + rows]
            is_last = start + rows >= len(self.frame)
            here = left if is_last else [misfit for misfit in left if misfit.row_number < numbers[-1]]
            left = left[len(here) :]
            frame = self.frame.iloc[start : start + rows].reset_index(drop=True)
            yield replace(self, frame=frame, row_numbers=numbers, misfits=here)
