"""Read CSV into partitions of strings. Arrow's parser reads plain blocks as a whole; other blocks are read record by
record."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from flows.refinery.contract.model import DEFAULT_DATASET, Contract
from flows.refinery.read.byte_source import HEAD_BYTES
from flows.refinery.read.columns import frame_of_arrays, missing_texts, text_values
from flows.refinery.read.csv_dialect import CsvDialect, dialect_of, names_of, shows_decimal
from flows.refinery.read.csv_layout import layout_fault, require_table
from flows.refinery.read.csv_numbers import is_ambiguous_number
from flows.refinery.read.csv_records import (
    TEXT_AFTER_QUOTE,
    has_line,
    holds_utf8,
    is_clean_text,
    lines_of,
    misplaced_quote,
    opening_quote,
    plain_structure,
    split_records,
    without_trailing,
    written_again,
)
from flows.refinery.read.header import check_header
from flows.refinery.read.partition import Limits, Misfit, Partition, SourceFormat
from flows.refinery.read.rejections import (
    EmptyFile,
    FormatNotAllowed,
    HeaderInvalid,
    MarksAmbiguous,
    QuoteMisplaced,
    RecordTooLong,
    TooManyRows,
    UnclosedQuote,
)
from flows.refinery.read.text_source import TextSource

_SMALLEST_BLOCK_BYTES = 64 * 1024
_PIECE_BYTES = 256 * 1024  # read at a time: the allocator reuses memory of this size, but not larger blocks
_PARSED_BYTES = 1024 * 1024  # parsed at a time, which fits into the processor's cache
_BLANK_LINE = re.compile(rb"^[ \t]+\r?$", re.MULTILINE)
_MARK = "\ufeff"
_QUOTE_HINT = (
    "close it, or double it within a field; if quotes are ordinary characters here, write one that is not in the file"
    ' under `format`, as in `quote: "\\x01"`'
)
_END_OF_TEXT = b"\x1a"  # Ctrl-Z, which DOS programs write at the end of text files
_NAMED_DELIMITER = re.compile(rb'"?sep=([^\w\s"]|\t)"?[,;\t]*\r?\n')  # a line that sets Excel's delimiter


@dataclass(slots=True)
class _Block:
    """A block of complete records, ready to be parsed."""

    content: memoryview  # the records' text, without that of misfits
    size: int  # how many of the pending bytes the records take
    rows: int  # how many there are, misfits included
    lines: int  # how many lines they take
    row_numbers: npt.NDArray[np.int64]  # of the records that are not misfits
    has_backslash: bool  # in the records that are not misfits
    misfits: list[Misfit] = field(default_factory=list)
    is_plain: bool = False  # whether `_cut_plain` made the block, which does not check the records one by one


def read_csv(
    source: TextSource, contract: Contract, rows_per_partition: int, limits: Limits, compression: Any
) -> Iterator[Partition]:
    """Read a CSV file. Blank lines are skipped. A file with only a header gives one partition without rows.

    Raises:
        CompressionBroken, EmptyFile, ExpandsTooMuch, FileTooLarge, FormatNotAllowed, HeaderInvalid, MarksAmbiguous,
        MarksContradict, NoTable, QuoteMisplaced, RecordTooLong, TextUndecodable, TooManyColumns, TooManyRows,
        UnclosedQuote
    """
    return _CsvReader(source, contract, rows_per_partition, limits, compression).partitions()


def read_rows(
    columns: list[str],
    rows: list[list[str]],
    contract: Contract,
    found: SourceFormat,
    marks: tuple[str | None, str | None],
    limits: Limits,
) -> Iterator[Partition]:
    """Read rows of strings as if they were a CSV file. Row numbers begin at 1.

    Args:
        found: how the file that the rows come from is written.
        marks: the decimal and the thousands separator; None for one that should be detected in the rows.
    """
    quote = contract.format.quote
    delimiter = found.delimiter if found.delimiter and len(found.delimiter) == 1 else ","
    content = written_again([columns, *rows], delimiter, quote)
    written = {
        "delimiter": delimiter,
        "trailing_delimiter": False,
        "decimal": marks[0],
        "thousands": marks[1],
        "skip_lines": 0,
        "escape": None,
        "header": True,
    }
    changed = contract.model_copy(update={"format": contract.format.model_copy(update=written)})
    return _CsvReader(io.BytesIO(content), changed, max(1, len(rows)), limits, found.compression).partitions()


class _CsvReader:
    def __init__(
        self,
        source: TextSource | io.BytesIO,
        contract: Contract,
        rows_per_partition: int,
        limits: Limits,
        compression: Any,
    ) -> None:
        self._source = source
        self._contract = contract
        self._rows_per_partition = rows_per_partition
        self._limits = limits
        self._rows = 0  # before the next block
        self._line = 1  # on which the next block begins
        self._pending = bytearray()  # read, and not yet part of a partition
        self._spare = bytearray()  # memory that is reused for the next bytes, because new memory takes more time
        self._is_end = False  # whether nothing follows the pending bytes
        self._escape = contract.format.escape
        self._escaped_quote = ""  # the position of the first quote that a backslash may escape
        self._has_backslash = False  # in rows that are not misfits
        self._header_line: int | None = None
        self._repeated_headers: list[bytes] = []  # the lines that would repeat the header
        self._fill(HEAD_BYTES)
        self._skip_lines(contract.format.skip_lines)
        self._dialect = self._find_dialect()
        self._marks = self._dialect.delimiter, self._dialect.quote
        # Arrow supports only delimiters of one character, so records with a longer one are written again with a comma.
        self._block_marks = self._dialect.delimiter if self._is_one_sign else ",", self._dialect.quote
        self._columns = self._read_header()
        self._places = list(map(str, range(len(self._columns))))
        self._missing = {name: frozenset(missing_texts(contract, name)) for name in self._columns}
        self._missing_everywhere = frozenset.intersection(*self._missing.values())
        self._block_bytes = self._first_block_bytes()
        self._source_format = SourceFormat(
            type="csv",
            compression=compression,
            encoding=getattr(source, "encoding", "utf-8"),
            delimiter=self._dialect.delimiter,
            decimal=self._dialect.decimal,
            thousands=self._dialect.thousands,
            is_decimal_proven=self._dialect.is_decimal_proven,
            is_delimiter_proven=self._dialect.is_delimiter_proven,
            trailing_delimiters=self._dialect.trailing,
            header_line=self._header_line,
            layout_fault=self._layout_fault,
        )
        self._ambiguous = False  # whether a declared column has a number such as 1.250, which can be read in two ways
        self._shown_decimals: set[str] = set()  # the decimal separators that other numbers in declared columns prove

    # --- the beginning ------------------------------------------------------------------------------------

    def _skip_lines(self, count: int) -> None:
        for _ in range(count):
            end = self._line_end()
            self._advance(end, lines=1)
        if not self._pending.strip() and self._is_end:
            raise EmptyFile(f"nothing follows the {count} skipped lines" if count else "the file is empty")

    def _line_end(self) -> int:
        """Return the index in the pending bytes at which their first line ends."""
        while (end := self._pending.find(b"\n")) < 0:
            if self._is_end:
                return len(self._pending)
            self._require_records_fit(len(self._pending))
            self._fill(2 * len(self._pending) + HEAD_BYTES)
        return end + 1

    def _find_dialect(self) -> CsvDialect:
        while self._pending and not self._pending[: self._line_end()].strip():
            self._advance(self._line_end(), lines=1)
        if not self._pending:
            raise EmptyFile("the file contains only blank lines")
        column = self._pending[: self._line_end()].find(b"\0") + 1
        if column:
            raise FormatNotAllowed(
                f"line {self._line}, column {column}: a NUL byte where the header should be; this is not text"
            )
        named = _NAMED_DELIMITER.fullmatch(self._pending[: self._line_end()])
        if named:
            self._advance(self._line_end(), lines=1)
        whole_lines = self._pending.rfind(b"\n", 0, HEAD_BYTES * 2) + 1 or self._line_end()
        sample = self._pending[:whole_lines].decode("utf-8", errors="surrogateescape")
        dialect = dialect_of(sample, self._contract, named[1].decode() if named else None)
        self._layout_fault = layout_fault(sample, dialect, self._contract, self._line)
        if self._contract.dataset == DEFAULT_DATASET:
            require_table(sample, dialect, self._contract, self._layout_fault)
        return dialect

    @property
    def _is_one_sign(self) -> bool:
        return len(self._dialect.delimiter) == 1

    def _read_header(self) -> list[str]:
        if not self._contract.format.header:
            return list(self._contract.columns)
        end = self._line_end()
        while True:
            lines = _lines(self._pending[:end])
            record = next(split_records(lines, *self._marks, self._escape), None)
            if record is not None and not record.is_open:
                break
            before, end = end, self._pending.rfind(b"\n") + 1 if not self._is_end else len(self._pending)
            if before < end:
                continue
            if self._is_end:
                line, column = opening_quote("".join(lines), *self._marks)
                raise UnclosedQuote(
                    f"line {self._line + line}, column {column}: a quote opens in the header and is never closed;"
                    f" {_QUOTE_HINT}"
                )
            self._require_records_fit(len(self._pending))
            self._fill(2 * len(self._pending))
        if record.fields is None:
            hint = self._layout_fault or "write the right `skip_lines`, `delimiter` or `quote` under `format`"
            raise HeaderInvalid(f"line {self._line}: the header cannot be read: {record.fault}; {hint}")
        size = len("".join(lines[: record.end_line]).encode("utf-8", errors="surrogateescape"))
        self._header_line = self._line + record.first_line
        names = names_of(record.fields, self._dialect.trailing)
        check_header(names, self._limits, where=f"line {self._line}: ", hint=self._layout_fault, can_be_named=True)
        if len(names) > 1:  # in a single column, a value may equal the column's name
            header = self._pending[:size].rstrip(b"\r\n")
            self._repeated_headers = [mark + header + end for mark in (b"", _MARK.encode()) for end in (b"\n", b"\r\n")]
        self._advance(size, lines=record.end_line)
        return names

    # --- blocks -------------------------------------------------------------------------------------------

    def partitions(self) -> Iterator[Partition]:
        while (block := self._next_block()) is not None:
            frame = self._to_frame(block)
            if frame is None and block.is_plain:
                # Some records have a different number of fields, are blank, or are not UTF-8.
                block = self._cut_records(self._pending[: block.size], is_last=False) or block
                frame = self._to_frame(block)
            if frame is None:
                raise AssertionError(f"Arrow did not find the {len(block.row_numbers)} rows that a block has")
            self._look_at_marks(frame)
            self._has_backslash |= self._escape is None and block.has_backslash
            self._advance(block.size, block.lines)
            self._rows += block.rows
            if self._rows > self._limits.max_rows:
                raise TooManyRows(f"the file has more than {self._limits.max_rows} rows")
            if not block.rows:
                continue
            partition = Partition(frame, block.row_numbers, block.misfits, self._source_format)
            del block, frame  # so that the memory is freed once the consumer drops the partition
            yield partition
            del partition
        if self._escaped_quote and self._has_backslash:
            raise QuoteMisplaced(
                f"{self._escaped_quote}: text follows a closing quote with \\ before it, and other rows have \\, too;"
                " if \\ escapes quotes, write `escape: '\\'` under `format`; if not, double the quotes within fields"
            )
        if self._ambiguous and self._shown_decimals != {"."}:
            raise MarksAmbiguous(
                'some numbers, such as those in the form 1.250, can be read in two ways; write `decimal: "."` or'
                ' `decimal: ","` under `format` in the contract'
            )
        if not self._rows:
            yield Partition(self._no_rows(), np.empty(0, np.int64), [], self._source_format)

    def _next_block(self) -> _Block | None:
        """Return a block of the next records, at most `rows_per_partition`, or None at the end of the file."""
        wanted = self._block_bytes
        while True:
            self._fill(wanted)
            if not self._pending:
                return None
            end = max(wanted, self._block_bytes)
            window = self._pending if len(self._pending) <= end else self._pending[:end]
            is_last = self._is_end and len(window) == len(self._pending)
            block = self._cut_plain(window) or self._cut_records(window, is_last)
            if block is not None:
                return block
            self._require_records_fit(len(self._pending))
            wanted = 2 * len(window)

    def _cut_plain(self, window: bytearray) -> _Block | None:
        """Return a block from the window's beginning that Arrow can read as a whole, or None if there is none."""
        end = window.rfind(b"\n") + 1
        if not end or not is_clean_text(window, end):
            return None
        if not self._is_one_sign or (self._escape and window.find(self._escape.encode(), 0, end) >= 0):
            return None
        structure = plain_structure(window, end, *self._marks)
        if structure is None or not len(structure.newlines):
            return None
        self._require_records_fit(int(np.diff(structure.newlines, prepend=-1).max()))
        rows = min(len(structure.newlines), self._rows_per_partition)
        end = int(structure.newlines[rows - 1]) + 1
        content = memoryview(window)[:end]
        if has_line(content, structure.newlines[:rows], self._repeated_headers):
            return None
        if len(self._columns) == 1 and _BLANK_LINE.search(content):
            return None
        lines = int(np.searchsorted(structure.all_newlines, end))
        has_backslash = window.find(b"\\", 0, end) >= 0
        if self._dialect.trailing:
            shorter = without_trailing(content, structure.newlines[:rows], *self._marks, self._dialect.trailing)
            if shorter is None:
                return None
            content = memoryview(shorter)
        numbers = np.arange(self._rows + 1, self._rows + 1 + rows)
        return _Block(content, end, rows, lines, numbers, has_backslash, is_plain=True)

    def _cut_records(self, window: bytearray, is_last: bool) -> _Block | None:
        """Cut a block record by record. Look only at as many bytes as one record may have, because many short lines
        take far more memory as Python objects than as bytes."""
        piece = window[: self._limits.max_record_bytes + 1]
        return self._cut_record_by_record(piece, is_last and len(piece) == len(window))

    def _cut_record_by_record(self, window: bytearray, is_last: bool) -> _Block | None:
        """Check each record, and return a block and its misfits, or None if no record is complete."""
        end = len(window) if is_last else window.rfind(b"\n") + 1
        lines = _lines(window[:end])
        good: list[list[str]] = []
        good_rows: list[int] = []
        misfits: list[Misfit] = []
        rows, used_lines = 0, 0
        for record in split_records(lines, *self._marks, self._escape):
            if record.is_open and not is_last:
                break
            if record.is_open:
                line, column = opening_quote("".join(lines[record.first_line :]), *self._marks)
                line += self._line + record.first_line
                raise UnclosedQuote(f"line {line}, column {column}: a quote opens and is never closed; {_QUOTE_HINT}")
            self._require_records_fit(sum(map(len, lines[record.first_line : record.end_line])), record.first_line)
            if record.fault == TEXT_AFTER_QUOTE:
                self._require_end_is_known(lines[record.first_line : record.end_line], record.first_line)
            rows += 1
            fields = record.fields or []
            fault = record.fault or self._fault_of(fields)
            if fault:
                text = "".join(lines[record.first_line : record.end_line]).rstrip("\r\n")
                misfits.append(Misfit.of(self._rows + rows, fault, text, self._line + record.first_line))
            else:
                good.append(fields[: len(self._columns)])
                good_rows.append(self._rows + rows)
            used_lines = record.end_line
            if rows == self._rows_per_partition:
                break
        else:
            used_lines = len(lines)
        if not used_lines:
            return None
        size = len("".join(lines[:used_lines]).encode("utf-8", errors="surrogateescape"))
        content = written_again(good, *self._block_marks)
        numbers = np.array(good_rows, dtype=np.int64)
        return _Block(memoryview(content), size, rows, used_lines, numbers, b"\\" in content, misfits)

    def _fault_of(self, fields: list[str]) -> str | None:
        """Return the reason why a readable record is not a row of the table, or None if it is a row."""
        columns = len(self._columns)
        if len(fields) != columns + self._dialect.trailing:
            return "too_few_fields" if len(fields) < columns + self._dialect.trailing else "too_many_fields"
        if any(field.strip() for field in fields[columns:]):
            return "too_many_fields"
        if self._repeated_headers and [fields[0].removeprefix(_MARK), *fields[1:columns]] == self._columns:
            return "repeated_header"
        return None

    def _require_end_is_known(self, lines: list[str], first_line: int) -> None:
        """Raise QuoteMisplaced for a record with text after a closing quote, unless it is a single line whose quotes
        are all closed, because only then is its end known."""
        text = "".join(lines)
        quote = self._dialect.quote
        unescaped = text.replace(f"\\{quote}", "")
        line, column = misplaced_quote(text, *self._marks, self._escape)
        if len(lines) == 1 and not text.count(quote) % 2 and not unescaped.count(quote) % 2:
            if unescaped != text and not self._escape:
                self._escaped_quote = self._escaped_quote or f"line {self._line + first_line + line}, column {column}"
            return
        hint = "; if \\ escapes quotes, write `escape: '\\'` under `format`" if unescaped != text else ""
        raise QuoteMisplaced(
            f"line {self._line + first_line + line}, column {column}: text follows a closing quote, so the end of this"
            f" record cannot be determined; double each quote within a field{hint}"
        )

    # --- frames -------------------------------------------------------------------------------------------

    def _to_frame(self, block: _Block) -> pd.DataFrame | None:
        """Return the strings of a block as a DataFrame, or None if Arrow cannot read them or finds a different number
        of rows, or if they are not UTF-8."""
        if not len(block.row_numbers):
            return self._no_rows()
        table = self._parsed(block.content, _PARSED_BYTES)
        if table is None and len(block.content) > _PARSED_BYTES:  # a record may be longer than that
            table = self._parsed(block.content, len(block.content))
        if table is None or table.num_rows != len(block.row_numbers):
            return None
        texts = [column.combine_chunks() for column in table.columns]
        del table
        if not all(map(holds_utf8, texts)):
            return None
        return frame_of_arrays(dict(zip(self._columns, map(self._column, self._columns, texts), strict=True)))

    def _parsed(self, content: memoryview, at_once: int) -> pa.Table | None:
        """Parse a block into strings, in pieces of `at_once` bytes. Return None if Arrow cannot read it."""
        delimiter, quote = self._block_marks
        try:
            return arrow_csv.read_csv(
                pa.py_buffer(content),
                arrow_csv.ReadOptions(column_names=self._places, use_threads=False, block_size=at_once),
                arrow_csv.ParseOptions(delimiter=delimiter, quote_char=quote, newlines_in_values=True),
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(self._places, pa.large_string()),
                    null_values=sorted(self._missing_everywhere),
                    strings_can_be_null=True,
                    check_utf8=False,  # `holds_utf8` is faster
                ),
            )
        except pa.ArrowInvalid:
            return None

    def _column(self, name: str, texts: pa.Array) -> Any:
        missing = self._missing[name] - self._missing_everywhere
        if missing:
            texts = pc.if_else(pc.is_in(texts, pa.array(sorted(missing))), None, texts)
        return text_values(texts)

    def _no_rows(self) -> pd.DataFrame:
        return pd.DataFrame({name: pd.Series([], dtype="str") for name in self._columns})

    def _look_at_marks(self, frame: pd.DataFrame) -> None:
        """Record whether numbers in declared columns are ambiguous, and which decimal separators the others prove, for
        the check at the file's end."""
        if self._dialect.is_decimal_proven:
            return
        for name in self._columns:
            column = self._contract.columns.get(name)
            if column is not None and column.type in ("number", "integer"):
                values = frame[name].dropna().unique().tolist()
                self._ambiguous |= any(map(is_ambiguous_number, values))
                self._shown_decimals |= {mark for mark in ".," if any(shows_decimal(value, mark) for value in values)}

    # --- bytes --------------------------------------------------------------------------------------------

    def _fill(self, size: int) -> None:
        """Read until there are at least `size` pending bytes, or the file ends. Give its last line a line end."""
        filled = len(self._pending)
        if self._is_end or filled >= size:
            return
        memory = self._spare if len(self._spare) >= size else bytearray()
        memory[:filled] = self._pending
        while filled < size and not self._is_end:
            piece = self._source.read(min(size - filled, _PIECE_BYTES))
            memory[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._is_end = not piece
        del memory[filled:]
        self._pending = memory
        if self._is_end:
            self._pending = self._pending.rstrip(_END_OF_TEXT)
            if self._pending and not self._pending.endswith(b"\n"):
                self._pending += b"\n"

    def _advance(self, size: int, lines: int) -> None:
        self._spare, self._pending = self._pending, self._pending[size:]
        self._line += lines

    def _require_records_fit(self, longest: int, line: int = 0) -> None:
        if longest > self._limits.max_record_bytes:
            raise RecordTooLong(
                f"a record on or soon after line {self._line + line} is longer than"
                f" {self._limits.max_record_bytes} bytes: its line has no end, or a quote in it is never closed"
            )

    def _first_block_bytes(self) -> int:
        """Estimate the size of one partition, in bytes, from the average length of the first lines."""
        sample = self._pending[:HEAD_BYTES]
        average = len(sample) / max(1, sample.count(b"\n"))
        wanted = int(average * self._rows_per_partition * 1.02)
        return max(_SMALLEST_BLOCK_BYTES, min(wanted, self._limits.max_block_bytes))


def _lines(content: bytes | bytearray) -> list[str]:
    return lines_of(content.decode("utf-8", errors="surrogateescape"))
