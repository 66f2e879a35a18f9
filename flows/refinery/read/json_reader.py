"""JSON Lines, and JSON documents (an array of objects, or one object), to partitions."""

from __future__ import annotations

import codecs
import json
import math
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flows.refinery.contract.model import Contract
from flows.refinery.read.columns import frame_of
from flows.refinery.read.csv_dialect import TEXT_TYPES
from flows.refinery.read.csv_records import shortened
from flows.refinery.read.json_depth import is_nested_too_deep
from flows.refinery.read.partition import Limits, Misfit, Partition, SourceFormat
from flows.refinery.read.rejections import EmptyFile, JsonBroken, RecordTooLong, TooManyColumns, TooManyRows
from flows.refinery.read.text_source import TextSource

_READ_BYTES = 1 << 20
_SPACE = " \t\r\n"
_SPACES = re.compile(f"[{_SPACE}]*")
_MAX_DIGITS = 400  # a float64 has at most 309 before the point
_MANY_DIGITS = re.compile(r"\d{401}")
_FRACTION = re.compile(r"\d[.eE]")


class _RowUnfit(ValueError):
    """One row cannot be taken; the message is the reason in snake_case."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RowUnfit("duplicate_key")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _RowUnfit("number_too_long")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_CAREFUL_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
_AS_WRITTEN = json.JSONDecoder(parse_float=str, parse_constant=str)
# A number among the texts of a nested value, behind a mark that no file can know.
_MARK = secrets.token_hex(16)
_MARKING = json.JSONDecoder(parse_float=lambda text: _MARK + text)
_MARKED = re.compile(f'"{_MARK}([^"]+)"')
_STRUCTURE = json.JSONDecoder(parse_int=float)  # takes any number of digits, and keys twice


@dataclass(slots=True)
class _Rows:
    """Rows on their way into a partition."""

    records: list[dict[str, Any]] = field(default_factory=list)
    row_numbers: list[int] = field(default_factory=list)
    misfits: list[Misfit] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    size: int = 0

    def __len__(self) -> int:
        return len(self.records) + len(self.misfits)


class _JsonRows:
    """Takes rows one by one, gives partitions when enough are there."""

    def __init__(
        self, contract: Contract, rows_per_partition: int, limits: Limits, source_format: SourceFormat
    ) -> None:
        self._contract = contract
        self._text_names = [name for name, column in contract.columns.items() if column.type in TEXT_TYPES]
        self._rows_per_partition = rows_per_partition
        self._limits = limits
        self._source_format = source_format
        self._rows = _Rows()
        self._total = 0
        self._all_names: set[str] = set()
        self._ready: list[Partition] = []

    def decode(self, raw: str, line: int | None) -> None:
        """Take one row's text.

        Args:
            line: on which it begins, from 1.
        """
        try:
            value = _decoded(raw)
            kinds = set(map(type, value.values()))
            if float in kinds and (names := self._to_keep_as_written(value, raw)):
                value = _with_written_numbers(value, raw, names)
            if (dict in kinds or list in kinds) and _FRACTION.search(raw):
                value |= _nested_as_written(raw)
            if not value.keys() <= self._rows.names.keys():
                self._widen(value)
        except _RowUnfit as unfit:
            self._total += 1
            self._rows.misfits.append(Misfit(self._total, str(unfit), shortened(raw), line))
        else:
            self._total += 1
            self._rows.records.append(value)
            self._rows.row_numbers.append(self._total)
            self._rows.size += len(raw)
        self._take_if_full()

    def _to_keep_as_written(self, value: dict[str, Any], raw: str) -> list[str]:
        names = [name for name in self._text_names if _is_number(value.get(name))]
        cells = value.values()
        if (math.inf in cells or -math.inf in cells) and "Infinity" not in raw:
            names += [name for name, cell in value.items() if type(cell) is float and math.isinf(cell)]
        return names

    def ready(self) -> Iterator[Partition]:
        """The partitions that are complete; each is given once."""
        ready, self._ready = self._ready, []
        yield from ready

    def rest(self) -> Iterator[Partition]:
        """What is left at the end; an empty partition where there was no row at all."""
        yield from self.ready()
        if len(self._rows) or not self._total:
            yield self._take()

    @property
    def total(self) -> int:
        """Rows so far."""
        return self._total

    def _widen(self, value: dict[str, Any]) -> None:
        """Make room for a row's new columns; the partition before it ends where the row would make it too wide."""
        new = value.keys() - self._rows.names.keys()
        if not all(name.strip() for name in new):
            raise _RowUnfit("empty_column_name")
        self._require_few_columns(new)
        cells = (len(self._rows.names) + len(new)) * (len(self._rows.records) + 1)
        if cells > self._limits.max_partition_cells and self._rows.records:
            self._ready.append(self._take())
        self._rows.names.update(dict.fromkeys(value))

    def _require_few_columns(self, new: set[str]) -> None:
        self._all_names |= new
        if len(self._all_names) > self._limits.max_columns:
            raise TooManyColumns(
                f"row {self._total + 1} brings the table to more than {self._limits.max_columns} columns"
            )

    def _take_if_full(self) -> None:
        rows = self._rows
        if (
            len(rows) >= self._rows_per_partition
            or rows.size >= self._limits.max_block_bytes
            or (len(rows.records) + 1) * len(rows.names) > self._limits.max_partition_cells
        ):
            self._ready.append(self._take())
        if self._total > self._limits.max_rows:
            raise TooManyRows(f"the file has more than {self._limits.max_rows} rows")

    def _take(self) -> Partition:
        rows, self._rows = self._rows, _Rows()
        columns = {name: [record.get(name) for record in rows.records] for name in rows.names}
        numbers = np.array(rows.row_numbers, dtype=np.int64)
        return Partition(frame_of(columns, self._contract), numbers, rows.misfits, self._source_format)


def read_json_lines(
    source: TextSource, contract: Contract, rows_per_partition: int, limits: Limits, compression: Any
) -> Iterator[Partition]:
    """Read one object per line. Blank lines are no rows. Nested values come as JSON text.

    Raises:
        RecordTooLong, TooManyColumns, TooManyRows, TextUndecodable, EmptyFile
    """
    found = SourceFormat(type="jsonl", compression=compression, encoding=source.encoding)
    rows = _JsonRows(contract, rows_per_partition, limits, found)
    for line, content in enumerate(_lines(source, limits), start=1):
        raw = content.decode("utf-8", errors="surrogateescape").strip(_SPACE)
        if not raw:
            continue
        rows.decode(raw, line)
        yield from rows.ready()
    if not rows.total:
        raise EmptyFile("the file holds nothing but blank lines")
    yield from rows.rest()


def _lines(source: TextSource, limits: Limits) -> Iterator[bytes]:
    rest = b""
    number = 0
    while content := source.read(_READ_BYTES):
        *lines, rest = (rest + content).split(b"\n")
        yield from lines
        number += len(lines)
        if max(map(len, [rest, *lines])) > limits.max_record_bytes:
            raise RecordTooLong(f"a line up to line {number + 1} is longer than {limits.max_record_bytes} bytes")
    if rest:
        yield rest


def read_json(
    source: TextSource, contract: Contract, rows_per_partition: int, limits: Limits, compression: Any
) -> Iterator[Partition]:
    """Read an array of objects, element by element, or one object as a single row. Nested values come as JSON text.

    Raises:
        JsonBroken, RecordTooLong, TooManyColumns, TooManyRows, TextUndecodable
    """
    found = SourceFormat(type="json", compression=compression, encoding=source.encoding)
    rows = _JsonRows(contract, rows_per_partition, limits, found)
    document = _Document(source, limits)
    if document.peek() == "[":
        document.skip(1)
        yield from _elements(document, rows)
    elif document.peek() == "{":
        yield from document.row(rows)
    else:
        raise JsonBroken(f"{document.where()}: a JSON table begins with [ or {{")
    if document.peek():
        raise JsonBroken(f"{document.where()}: something follows after the JSON document's end")
    yield from rows.rest()


def _elements(document: _Document, rows: _JsonRows) -> Iterator[Partition]:
    if document.peek() == "]":
        document.skip(1)
        return
    while True:
        yield from document.row(rows)
        mark = document.peek()
        if mark not in (",", "]"):
            problem = "the array is not closed; the file seems cut short" if not mark else "a comma or ] is missing"
            raise JsonBroken(f"{document.where()}: {problem}")
        document.skip(1)
        if mark == "]":
            return


class _Document:
    """A JSON text read piece by piece; only the current value is held."""

    def __init__(self, source: TextSource, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._at = 0
        self._line, self._line_start = 1, 0
        self._is_end = False

    def peek(self) -> str:
        """The next character that is not space, or nothing at the end."""
        while True:
            space = _SPACES.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def skip(self, characters: int) -> None:
        """Go on by some characters."""
        self._at += characters

    def where(self) -> str:
        """`line n, column n` of the current character."""
        before = self._text[: self._at]
        line = self._line + before.count("\n")
        start = before.rfind("\n")
        column = self._at - start if start >= 0 else self._at + 1 - self._line_start
        return f"line {line}, column {column}"

    def row(self, rows: _JsonRows) -> Iterator[Partition]:
        """Take one value as a row.

        Raises:
            JsonBroken: it is malformed, so that where the next one begins cannot be known.
        """
        self.peek()
        line = self._line + self._text.count("\n", 0, self._at)
        end = self._end_of_value()
        raw = self._text[self._at : end]
        self._at = end
        rows.decode(raw, line)
        yield from rows.ready()

    def _end_of_value(self) -> int:
        while True:
            try:
                _, end = _STRUCTURE.raw_decode(self._text, self._at)
            except RecursionError:
                raise JsonBroken(f"{self.where()}: values are nested too deep") from None
            except ValueError as error:
                if self._is_end:
                    self._at = min(getattr(error, "pos", self._at), len(self._text))
                    problem = getattr(error, "msg", "malformed")
                    raise JsonBroken(f"{self.where()}: not JSON: {problem}") from None
            else:
                # A number at the end of what was read may go on in what was not.
                if end < len(self._text) or self._is_end:
                    return int(end)
            self._fill()

    def _fill(self) -> bool:
        """Read on; False at the end. Each time as much again as is held, so that no value is scanned too often."""
        if self._is_end:
            return False
        if len(self._text) - self._at > self._limits.max_record_bytes:
            raise RecordTooLong(
                f"{self.where()}: a value is malformed or longer than {self._limits.max_record_bytes} bytes"
            )
        self._forget()
        content = self._source.read(max(_READ_BYTES, len(self._text)))
        self._is_end = not content
        self._text += self._decoder.decode(content, self._is_end)
        return bool(content)

    def _forget(self) -> None:
        before = self._text[: self._at]
        if "\n" in before:
            self._line += before.count("\n")
            self._line_start = -(len(before) - before.rfind("\n") - 1)
        else:
            self._line_start -= len(before)
        self._text = self._text[self._at :]
        self._at = 0


def _decoded(raw: str) -> dict[str, Any]:
    """The object in a row's text.

    Raises:
        _RowUnfit: it has none, or one that cannot be kept as it is.
    """
    many_digits = len(raw) > _MAX_DIGITS and _MANY_DIGITS.search(raw)
    try:
        value = (_CAREFUL_DECODER if many_digits else _DECODER).decode(raw)
    except RecursionError:
        raise _RowUnfit("nested_too_deep") from None
    except json.JSONDecodeError:
        raise _RowUnfit("not_json") from None
    if not isinstance(value, dict):
        raise _RowUnfit("not_an_object")
    if is_nested_too_deep(value, raw):
        raise _RowUnfit("nested_too_deep")
    if not _is_text(raw, value):
        raise _RowUnfit("undecodable_text")
    if not value:
        raise _RowUnfit("empty_object")
    return value


def _with_written_numbers(value: dict[str, Any], raw: str, names: list[str]) -> dict[str, Any]:
    """A row in which some numbers are as the file writes them: 1.10 is not 1.1 in a text column, nor 1e400 infinite."""
    written = _AS_WRITTEN.decode(raw)
    return value | {name: written[name] for name in names}


def _nested_as_written(raw: str) -> dict[str, str]:
    """The JSON text of a row's objects and arrays, with numbers as the file writes them: 1.10, 1e400."""
    nested = {name: cell for name, cell in _MARKING.decode(raw).items() if isinstance(cell, dict | list)}
    return {name: _MARKED.sub(r"\1", json.dumps(cell, ensure_ascii=False)) for name, cell in nested.items()}


def _is_number(value: Any) -> bool:
    return type(value) is float and value == value  # NaN, which is missing, differs from itself


def _is_text(raw: str, value: dict[str, Any]) -> bool:
    """Whether all of a row's strings can be written as UTF-8: half of a surrogate pair, for one, cannot."""
    try:
        if not raw.isascii():
            raw.encode("utf-8")
        if "\\ud" in raw or "\\uD" in raw:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
