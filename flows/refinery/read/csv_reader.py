"""CSV to partitions: pandas's C parser over whole blocks, record by record only where a block has a fault."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows.refinery.contract.model import DEFAULT_DATASET, Contract
from flows.refinery.read.byte_source import HEAD_BYTES
from flows.refinery.read.columns import missing_texts, missing_unless_text
from flows.refinery.read.csv_dialect import CsvDialect, dialect_of, names_of, shows_decimal
from flows.refinery.read.csv_layout import layout_fault, require_table
from flows.refinery.read.csv_numbers import (
    columns_with_marked_numbers,
    is_ambiguous_number,
    may_differ_as_floats,
)
from flows.refinery.read.csv_records import (
    TEXT_AFTER_QUOTE,
    Plain,
    has_line,
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
_EXACT_FLOAT = 2**53  # from here on not every integer is a float64
_SENTINEL = "sluice:text"
_MARK = "\ufeff"
_QUOTE_HINT = (
    "close it, or double it within a field; where quotes are signs like any other, write one that is not in the file"
    ' under `format`, as in `quote: "\\x01"`'
)
_END_OF_TEXT = b"\x1a"  # Ctrl-Z, with which programs of DOS end a text
_NAMED_DELIMITER = re.compile(rb'"?sep=([^\w\s"]|\t)"?[,;\t]*\r?\n')  # Excel's own first line


@dataclass(slots=True)
class _Block:
    """Whole records, ready to be parsed.

    Attributes:
        content: their text, without the misfits'.
        size: how many of the pending bytes they take.
        rows: how many there are, misfits included.
        lines: how many lines they take.
        first_row: the fields of the first that is no misfit.
        row_numbers: of those that are no misfits.
        ends: where each record ends in `content`; None where the records were looked at one by one.
    """

    content: bytes
    size: int
    rows: int
    lines: int
    first_row: list[str]
    row_numbers: npt.NDArray[np.int64]
    misfits: list[Misfit] = field(default_factory=list)
    ends: npt.NDArray[np.int64] | None = None


def read_csv(
    source: TextSource, contract: Contract, rows_per_partition: int, limits: Limits, compression: Any
) -> Iterator[Partition]:
    """Read a CSV file. Blank lines are no rows. A file with a header only gives one partition without rows.

    Raises:
        EmptyFile, HeaderInvalid, TooManyColumns, RecordTooLong, UnclosedQuote, QuoteMisplaced, TooManyRows,
        TextUndecodable
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
    """Read rows of texts as a CSV file with these rows would be read; row numbers begin at 1.

    Args:
        found: how the file is written.
        marks: decimal and thousands mark; None to be found out from the rows.
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


@dataclass(frozen=True)
class _BlockParser:
    """Parses blocks with pandas. It can be pickled, so that another process can judge a partition.

    Attributes:
        missing: by column the texts that mean missing.
        missing_unless_text: the same where no other value of the column is a text.
    """

    columns: list[str]
    dialect: CsvDialect
    missing: dict[str, list[str]]
    missing_unless_text: dict[str, list[str]]

    def parse(self, block: _Block, text_columns: Collection[str]) -> pd.DataFrame:
        """Parse a block; a last row of text is added and taken off, so that text columns are not taken for numbers.

        That is several times faster than `dtype=str`, which makes a Python object of every value.
        """
        sentinel = b""
        if text_columns:
            row = [
                _SENTINEL if name in text_columns else value
                for name, value in zip(self.columns, block.first_row, strict=True)
            ]
            sentinel = written_again([row], self.dialect.delimiter, self.dialect.quote)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            text: Any = _Utf8(block.content + sentinel)
            frame: pd.DataFrame = pd.read_csv(
                text,
                sep=self.dialect.delimiter,
                quotechar=self.dialect.quote,
                decimal=self.dialect.decimal,
                header=None,
                names=self.columns,
                index_col=False,
                engine="c",
                low_memory=False,  # one type per column and block, and so the texts as they were
                keep_default_na=False,
                na_values={name: texts for name, texts in self.missing_unless_text.items() if name not in text_columns},
                on_bad_lines="error",
            )
        frame = frame.iloc[:-1] if sentinel else frame
        return frame.apply(self._with_missing) if len(frame) else frame

    def texts(self, block: _Block, positions: Any) -> pd.DataFrame:
        """Some rows as text. A few of many are cut out and parsed alone."""
        if block.ends is None or len(positions) > len(block.ends) // 2:
            chosen_rows: pd.DataFrame = self.parse(block, self.columns).iloc[positions]
            return chosen_rows.reset_index(drop=True)
        starts = np.concatenate([[0], block.ends[:-1] + 1])[positions]
        pieces = zip(starts.tolist(), block.ends[positions].tolist(), strict=True)
        chosen = b"".join(block.content[start : end + 1] for start, end in pieces)
        return self.parse(replace(block, content=chosen), self.columns)

    def _with_missing(self, values: pd.Series[Any]) -> pd.Series[Any]:
        """The column with its missing values missing: pandas 3.1 leaves them as texts among integers beyond 64 bits."""
        if not isinstance(values.dtype, pd.StringDtype):
            return values
        is_missing = values.isin(self.missing[str(values.name)])
        return values.mask(is_missing) if is_missing.any() else values


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
        self._pending = b""  # read, and not yet part of a partition
        self._is_end = False  # whether nothing follows the pending bytes
        self._escape = contract.format.escape
        self._escaped_quote = ""  # where the first is that may be one
        self._has_backslash = False  # in rows that are no misfits
        self._header_line: int | None = None
        self._repeated_headers: list[bytes] = []  # as they would be in the file
        self._fill(HEAD_BYTES)
        self._skip_lines(contract.format.skip_lines)
        self._dialect = self._find_dialect()
        self._marks = self._dialect.delimiter, self._dialect.quote
        # What is written for pandas has a delimiter of one sign, whatever the file has.
        parsed = self._dialect if self._is_one_sign else replace(self._dialect, delimiter=",")
        self._block_marks = parsed.delimiter, parsed.quote
        self._columns = self._read_header()
        missing = {name: list(missing_texts(contract, name)) for name in self._columns}
        unless_text = {
            name: list(missing_unless_text(contract)) for name in self._columns if name not in contract.columns
        }
        self._parser = _BlockParser(self._columns, parsed, missing, missing | unless_text)
        # Of numbers pandas would take 0.0 for a missing 0.
        by_text = {name for name, texts in missing.items() if any(map(_is_number, texts))}
        self._text_columns = self._dialect.text_columns & set(self._columns) | by_text
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
        self._ambiguous = False  # whether some 1.250 in a declared column was read with a decimal point
        self._shown_decimals: set[str] = set()  # by the other numbers of declared columns

    # --- the beginning ------------------------------------------------------------------------------------

    def _skip_lines(self, count: int) -> None:
        for _ in range(count):
            end = self._line_end()
            self._advance(end, lines=1)
        if not self._pending.strip() and self._is_end:
            raise EmptyFile(f"nothing follows the {count} skipped lines" if count else "the file is empty")

    def _line_end(self) -> int:
        """The end of the pending bytes' first line."""
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
            raise EmptyFile("the file holds nothing but blank lines")
        column = self._pending[: self._line_end()].find(b"\0") + 1
        if column:
            raise FormatNotAllowed(
                f"line {self._line}, column {column}: a NUL byte where the header should be; this is no text"
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
        while True:
            end = self._pending.rfind(b"\n") + 1 if not self._is_end else len(self._pending)
            lines = _lines(self._pending[:end])
            record = next(split_records(lines, *self._marks, self._escape), None)
            if record is not None and not record.is_open:
                break
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
        if len(names) > 1:  # a value may be like the name of its column
            header = self._pending[:size].rstrip(b"\r\n")
            self._repeated_headers = [mark + header + end for mark in (b"", _MARK.encode()) for end in (b"\n", b"\r\n")]
        self._advance(size, lines=record.end_line)
        return names

    # --- blocks -------------------------------------------------------------------------------------------

    def partitions(self) -> Iterator[Partition]:
        while (block := self._next_block()) is not None:
            frame = self._to_frame(block)
            if frame is None and block.ends is not None:
                # As many fields as in a regular block, but not in every row: one is long and one short, or blank.
                block = self._cut_record_by_record(self._pending[: block.size], is_last=False) or block
                frame = self._to_frame(block)
            if frame is None:
                raise AssertionError(f"pandas did not find the {len(block.row_numbers)} rows that a block has")
            self._has_backslash |= self._escape is None and b"\\" in block.content
            self._advance(block.size, block.lines)
            self._rows += block.rows
            if self._rows > self._limits.max_rows:
                raise TooManyRows(f"the file has more than {self._limits.max_rows} rows")
            if block.rows:
                texts = partial(self._parser.texts, block) if len(frame) else None
                yield Partition(frame, block.row_numbers, block.misfits, self._source_format, texts)
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
        """The next whole records, at most `rows_per_partition`; None at the end."""
        wanted = self._block_bytes
        while True:
            self._fill(wanted)
            if not self._pending:
                return None
            window = self._pending[: max(wanted, self._block_bytes)]
            is_last = self._is_end and len(window) == len(self._pending)
            block = self._cut_plain(window) or self._cut_records(window, is_last)
            if block is not None:
                return block
            self._require_records_fit(len(self._pending))
            wanted = 2 * len(window)

    def _cut_plain(self, window: bytes) -> _Block | None:
        """A block that pandas can take as it is, cut from the window's beginning; None where it is not so plain."""
        end = window.rfind(b"\n") + 1
        if not end or not is_clean_text(window[:end]):
            return None
        if not self._is_one_sign or (self._escape and self._escape.encode() in window[:end]):
            return None
        structure = plain_structure(window[:end], *self._marks)
        if structure is None or not len(structure.newlines):
            return None
        self._require_records_fit(int(np.diff(structure.newlines, prepend=-1).max()))
        rows = min(len(structure.newlines), self._rows_per_partition)
        end = int(structure.newlines[rows - 1]) + 1
        trailing = self._dialect.trailing
        if np.count_nonzero(structure.delimiters[:end]) != rows * (len(self._columns) - 1 + trailing):
            return None
        content = window[:end]
        if has_line(content, structure.newlines[:rows], self._repeated_headers):
            return None
        lines = content.count(b"\n") if structure.has_quotes else rows
        if trailing:
            structure = Plain(structure.newlines[:rows], structure.delimiters[:end], structure.has_quotes)
            shorter = without_trailing(content, structure, trailing)
            if shorter is None:
                return None
            content, structure = shorter
        first = next(split_records(_lines(content[: int(structure.newlines[0]) + 1]), *self._marks), None)
        if first is None or first.fields is None or len(first.fields) != len(self._columns):
            return None
        numbers = np.arange(self._rows + 1, self._rows + 1 + rows)
        return _Block(content, end, rows, lines, first.fields, numbers, ends=structure.newlines[:rows])

    def _cut_records(self, window: bytes, is_last: bool) -> _Block | None:
        """Look at no more text than one record may have: many short lines take far more memory than their bytes."""
        piece = window[: self._limits.max_record_bytes + 1]
        return self._cut_record_by_record(piece, is_last and len(piece) == len(window))

    def _cut_record_by_record(self, window: bytes, is_last: bool) -> _Block | None:
        """The block where each record is looked at, with its misfits; None where not even one record is whole."""
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
        return _Block(content, size, rows, used_lines, good[0] if good else [], numbers, misfits)

    def _fault_of(self, fields: list[str]) -> str | None:
        """Why a record is no row although it can be read."""
        columns = len(self._columns)
        if len(fields) != columns + self._dialect.trailing:
            return "too_few_fields" if len(fields) < columns + self._dialect.trailing else "too_many_fields"
        if any(field.strip() for field in fields[columns:]):
            return "too_many_fields"
        if self._repeated_headers and [fields[0].removeprefix(_MARK), *fields[1:columns]] == self._columns:
            return "repeated_header"
        return None

    def _require_end_is_known(self, lines: list[str], first_line: int) -> None:
        """Refuse a record with text after a closing quote, unless it is one line whose quotes are all closed."""
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
            f"line {self._line + first_line + line}, column {column}: text follows a closing quote, so where this"
            f" record ends cannot be known; double each quote within a field{hint}"
        )

    # --- frames -------------------------------------------------------------------------------------------

    def _to_frame(self, block: _Block) -> pd.DataFrame | None:
        """The frame of a block; None where pandas does not find the rows that it should have."""
        if not len(block.row_numbers):
            return self._no_rows()
        try:
            frame = self._parser.parse(block, self._text_columns)
            lossy = {name for name in frame.columns if self._loses_value(name, frame[name])}
            lossy |= self._losing_signs(block, frame, lossy)
            lossy |= self._ambiguous_columns(block, frame)
            lossy |= self._losing_texts(frame) | self._losing_digits(block, frame, lossy)
            if lossy:
                self._text_columns |= lossy
                frame = self._parser.parse(block, self._text_columns)
        except pd.errors.ParserError:
            return None
        return frame if len(frame) == len(block.row_numbers) else None

    def _no_rows(self) -> pd.DataFrame:
        return pd.DataFrame({name: pd.Series([], dtype="str") for name in self._columns})

    def _loses_value(self, name: str, values: pd.Series[Any]) -> bool:
        """Whether float64 may lose what the file has: large integers among missing values, and overflows."""
        if values.dtype != np.float64:
            return False
        numbers = values.to_numpy()
        great = np.abs(numbers[~np.isnan(numbers)])
        if not len(great) or great.max() < _EXACT_FLOAT:
            return False
        if np.isinf(great).any():
            return True
        declared = self._contract.columns.get(name)
        return declared is None or declared.type == "integer"

    def _losing_signs(self, block: _Block, frame: pd.DataFrame, lossy: Collection[str]) -> set[str]:
        """Columns of numbers that the contract does not name, and that lose zeros or a plus in front of one.

        The file's beginning shows some; the first such number may come much later.
        """
        known = {*self._contract.columns, *self._text_columns, *lossy}
        in_question = [
            place
            for place, name in enumerate(self._columns)
            if name not in known and pd.api.types.is_numeric_dtype(frame[name].dtype)
        ]
        if not in_question:
            return set()
        size = (len(self._columns), len(frame))
        found = columns_with_marked_numbers(block.content, *self._block_marks, in_question, *size)
        return {self._columns[place] for place in found}

    def _losing_texts(self, frame: pd.DataFrame) -> set[str]:
        """Columns that the contract does not name, and whose missing values may be texts as others are."""
        if not self._contract.format.missing_unless_text:
            return set()
        return {
            name
            for name in self._undeclared(frame)
            if (isinstance(frame[name].dtype, pd.StringDtype) and frame[name].hasnans) or frame[name].isna().all()
        }

    def _losing_digits(self, block: _Block, frame: pd.DataFrame, lossy: Collection[str]) -> set[str]:
        """Columns of numbers that the contract does not name, where some number may have more digits than a float
        keeps, or be a code.

        They are read as texts from then on: looking for the one column would take as long in every block.
        """
        names = {name for name in self._undeclared(frame) if frame[name].dtype == np.float64 and name not in lossy}
        return names if names and may_differ_as_floats(block.content, self._dialect.decimal) else set()

    def _undeclared(self, frame: pd.DataFrame) -> list[str]:
        """The columns that the contract does not name, and that are not kept as text yet."""
        return [name for name in frame.columns if name not in self._contract.columns and name not in self._text_columns]

    def _ambiguous_columns(self, block: _Block, frame: pd.DataFrame) -> set[str]:
        """Columns that the contract does not name, with numbers such as 1.250 where nothing shows the decimal mark.

        In columns that it declares as numbers, what they show about the mark is noted for the file's end.
        """
        if self._dialect.is_decimal_proven or b"." not in block.content:
            return set()
        declared = {name for name, column in self._contract.columns.items() if column.type in ("number", "integer")}
        found: set[str] = set()
        texts: pd.DataFrame | None = None
        for name in self._columns:
            is_float = frame[name].dtype == np.float64
            if name in self._text_columns or not (is_float or name in declared):
                continue
            texts = self._parser.parse(block, self._columns) if texts is None else texts
            values = texts[name].dropna().unique().tolist()
            is_ambiguous = any(map(is_ambiguous_number, values))
            if name not in declared:
                found |= {name} if is_ambiguous else set()
                continue
            self._ambiguous |= is_ambiguous
            self._shown_decimals |= {mark for mark in ".," if any(shows_decimal(value, mark) for value in values)}
        return found

    # --- bytes --------------------------------------------------------------------------------------------

    def _fill(self, size: int) -> None:
        """Have at least `size` pending bytes, or all that are left. The last line always ends."""
        while len(self._pending) < size and not self._is_end:
            wanted = size - len(self._pending)
            content = self._source.read(wanted)
            self._pending += content
            if not content:
                self._is_end = True
                self._pending = self._pending.rstrip(_END_OF_TEXT)
                if self._pending and not self._pending.endswith(b"\n"):
                    self._pending += b"\n"

    def _advance(self, size: int, lines: int) -> None:
        self._pending = self._pending[size:]
        self._line += lines

    def _require_records_fit(self, longest: int, line: int = 0) -> None:
        if longest > self._limits.max_record_bytes:
            raise RecordTooLong(
                f"a record on or soon after line {self._line + line} is longer than"
                f" {self._limits.max_record_bytes} bytes: its line has no end, or a quote in it is never closed"
            )

    def _first_block_bytes(self) -> int:
        """Bytes that hold about one partition, by the length of the first records."""
        sample = self._pending[:HEAD_BYTES]
        average = len(sample) / max(1, sample.count(b"\n"))
        wanted = int(average * self._rows_per_partition * 1.02)
        return max(_SMALLEST_BLOCK_BYTES, min(wanted, self._limits.max_block_bytes))


class _Utf8:
    """UTF-8 bytes for pandas's C parser, which would decode and encode them again from a BytesIO."""

    mode = "r"

    def __init__(self, content: bytes) -> None:
        self.read = io.BytesIO(content).read

    def __iter__(self) -> Iterator[bytes]:  # pandas asks for it, to tell a file from a path, and never calls it
        raise NotImplementedError


def _lines(content: bytes) -> list[str]:
    return lines_of(content.decode("utf-8", errors="surrogateescape"))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
