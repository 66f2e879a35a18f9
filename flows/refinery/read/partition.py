"""What reading a file gives: partitions of rows, the rows that could not be decoded, and the limits on all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

_MISFIT_RAW_BYTES = 1024
_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on everything whose size the uploader decides. What exceeds one is rejected, never read to its end.

    Attributes:
        max_file_bytes: the file as it was uploaded.
        max_expanded_bytes: the file after decompression; also the size of the columns according to a Parquet file.
        max_expansion_ratio: expanded to uploaded bytes, judged from `expansion_grace_bytes` on.
        expansion_grace_bytes: expanded bytes up to which no ratio is too high.
        max_columns: columns of a table.
        max_record_bytes: one CSV record, JSON Lines line or JSON object, and a CSV header.
        max_rows: rows of a table, misfits included.
        max_workbook_bytes: an XLSX file's unpacked parts together; a workbook is read as a whole.
        max_workbook_cells: an XLSX sheet's rows times columns; the reader holds them all, empty or not.
        max_partition_cells: rows times columns of one partition.
        max_block_bytes: text that is parsed at a time.
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
    max_block_bytes: int = 12 * _MIB


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row that could not be decoded. It belongs in quarantine."""

    row_number: int  # its place among the file's data rows, from 1
    reason: str  # why, in snake_case
    raw: str  # its text as it was, at most 1 KiB of it, bytes that are no UTF-8 as backslash escapes
    line: int | None = None  # the line of the file on which it begins, from 1; None where the format has no lines

    @classmethod
    def of(cls, row_number: int, reason: str, text: str, line: int | None = None) -> Misfit:
        """Return a misfit of a text of any length, whose bytes that are no UTF-8 are surrogate escapes."""
        content = text[:_MISFIT_RAW_BYTES].encode("utf-8", errors="surrogateescape")
        clean = content.decode("utf-8", errors="backslashreplace").encode()[:_MISFIT_RAW_BYTES]
        return cls(row_number, reason, clean.decode("utf-8", errors="ignore"), line)


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """How the file turned out to be written: given by the contract or found out."""

    type: Literal["csv", "json", "jsonl", "parquet", "xlsx"]  # the file format
    compression: Literal["gzip", "zstd"] | None = None  # what was around it
    encoding: str | None = None  # of text formats; None for others
    delimiter: str | None = None  # between CSV fields; None for others
    is_delimiter_proven: bool = True  # whether the contract or the file shows it
    trailing_delimiters: int = 0  # how many each CSV record ends with
    header_line: int | None = None  # the line of a CSV file on which the header begins, from 1; None without one
    decimal: str = "."  # marks in the numbers of CSV
    thousands: str | None = None
    # whether the contract or the file shows the decimal mark. Else 1.250 is text in a column that the contract does not
    # name.
    is_decimal_proven: bool = True
    sheet: str | None = None  # the sheet that was read; None for other formats than XLSX
    other_sheets: tuple[str, ...] = ()  # the workbook's other visible ones
    merged_ranges: int = 0  # ranges of merged cells in the sheet
    # number formats of the workbook that show zeros in front, which the cells do not hold
    padding_formats: tuple[str, ...] = ()
    # the one cause why most rows of a CSV do not fit its header, or the header not the contract
    layout_fault: str | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """Some consecutive rows of a file."""

    # the decoded rows under a RangeIndex, with the file's own column names, in the file's order. A column of CSV holds
    # its texts as they are in the file. From typed formats, a column with a value that does not fit the others keeps
    # its values (object).
    frame: pd.DataFrame
    row_numbers: npt.NDArray[np.int64]  # for each row of the frame its place among the file's data rows, from 1
    misfits: list[Misfit] = field(default_factory=list)  # the rows between them that could not be decoded
    # how the file is written; the same for all of its partitions
    source_format: SourceFormat = field(default_factory=lambda: SourceFormat(type="csv"))

    @property
    def rows_in(self) -> int:
        """Return the file's rows that this partition accounts for, decoded or not."""
        return len(self.frame) + len(self.misfits)

    def cut(self, rows: int) -> Iterator[Partition]:
        """Yield the partition in pieces of at most so many rows; misfits come with the rows before which they are."""
        left = self.misfits
        for start in range(0, max(1, len(self.frame)), rows):
            numbers = self.row_numbers[start : start + rows]
            is_last = start + rows >= len(self.frame)
            here = left if is_last else [misfit for misfit in left if misfit.row_number < numbers[-1]]
            left = left[len(here) :]
            frame = self.frame.iloc[start : start + rows].reset_index(drop=True)
            yield replace(self, frame=frame, row_numbers=numbers, misfits=here)
