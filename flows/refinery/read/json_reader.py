"""Read JSON Lines, and JSON documents (arrays of objects, or consecutive objects), into partitions."""

from __future__ import annotations

import codecs
import json
import math
import re
import secrets
from collections.abc import Iterator
from typing import Any

from flows.refinery.contract.model import Contract
from flows.refinery.read.columns import TEXT_TYPES, RowBuffer
from flows.refinery.read.csv_numbers import is_written_by_float
from flows.refinery.read.json_depth import is_nested_too_deep
from flows.refinery.read.json_forms import require_row
from flows.refinery.read.partition import Limits, Partition, SourceFormat
from flows.refinery.read.rejections import (
    EmptyFile,
    ExpandsTooMuch,
    JsonBroken,
    JsonNotRows,
    RecordTooLong,
    TooManyColumns,
)
from flows.refinery.read.text_source import SURROGATE, TextSource
from flows.refinery.suggestions import did_you_mean

_READ_BYTES = 1 << 20
_SPACE = " \t\r\n\x1e"  # 0x1e begins each text of a JSON text sequence: RFC 7464
_SPACES = re.compile(f"[{_SPACE}]*")
_FREE_CELLS = 8_000_000  # 64 MB if they are numbers
_MAX_CELLS_PER_BYTE = 10  # there are fewer even if a column has a value in only one of a hundred rows
_IS_FOLLOWED = re.compile(rf"\}}[{_SPACE}]*\{{")
_MAX_DIGITS = 400  # a float64 has at most 309 digits before the point
_MANY_DIGITS = re.compile(r"\d{401}")
_LONG_NUMBER = re.compile(r"\d[\d.]{15}|[eE]-\d{3}")
_FRACTION = re.compile(r"\d[.eE]")


class _RowUnfit(ValueError):
    """A row cannot be decoded; the message is the reason in snake_case."""


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
# Marks a number that is kept as text in a nested value. It is random, so that no file can contain it.
_MARK = secrets.token_hex(16)
_MARKING = json.JSONDecoder(parse_float=lambda text: _MARK + text)
_MARKED = re.compile(f'"{_MARK}([^"]+)"')
_STRUCTURE = json.JSONDecoder(parse_int=float)  # accepts any number of digits, and duplicate keys


class _JsonRows:
    """Collects rows one by one, and yields them as partitions."""

    def __init__(
        self, contract: Contract, rows_per_partition: int, limits: Limits, source_format: SourceFormat
    ) -> None:
        self._declared = contract.columns
        self._text_names = [name for name, column in contract.columns.items() if column.type in TEXT_TYPES]
        self._rows_per_partition = rows_per_partition
        self._limits = limits
        self._rows = RowBuffer(contract, limits, source_format)
        self._names: dict[str, None] = {}
        self._size = 0
        self._all_names: set[str] = set()
        self._bytes_in = 0

    def take(self, raw: str, line: int) -> Iterator[Partition]:
        """Decode and add one row, and yield the partitions that are complete as a result.

        Args:
            raw: the row's JSON text.
            line: the line on which it begins, from 1.

        Raises:
            TooManyColumns, TooManyRows, ExpandsTooMuch
        """
        self._bytes_in += len(raw)
        try:
            value = self._decoded(raw)
        except _RowUnfit as unfit:
            self._rows.add_misfit(str(unfit), raw, line)
        else:
            if not value.keys() <= self._names.keys():
                yield from self._widen(value)
            self._rows.add(value)
            self._size += len(raw)
        self._require_dense()
        if (
            len(self._rows) >= self._rows_per_partition
            or self._size >= self._limits.max_block_bytes
            or (len(self._rows.rows) + 1) * len(self._names) > self._limits.max_partition_cells
        ):
            yield self._partition()

    @property
    def total(self) -> int:
        return self._rows.total

    def rest(self) -> Iterator[Partition]:
        """Yield the remaining rows at the end of the file, or an empty partition if the file has no rows."""
        if len(self._rows) or not self._rows.total:
            yield self._partition()

    def _decoded(self, raw: str) -> dict[str, Any]:
        value = _object_in(raw)
        kinds = set(map(type, value.values()))
        if float in kinds and (names := self._to_keep_as_written(value, raw)):
            written = _AS_WRITTEN.decode(raw)  # in a text column, 1.10 must not become 1.1, nor 1e400 infinity
            value |= {name: written[name] for name in names}
        if (dict in kinds or list in kinds) and _FRACTION.search(raw):
            value |= _nested_as_written(raw)
        if not all(name.strip() for name in value.keys() - self._names.keys()):
            raise _RowUnfit("empty_column_name")
        return value

    def _to_keep_as_written(self, value: dict[str, Any], raw: str) -> list[str]:
        names = [name for name in self._text_names if _is_number(value.get(name))]
        cells = value.values()
        if _LONG_NUMBER.search(raw):
            written = _AS_WRITTEN.decode(raw)
            undeclared = (name for name, cell in value.items() if name not in self._declared and _is_number(cell))
            names += [name for name in undeclared if not is_written_by_float(written[name])]
        if (math.inf in cells or -math.inf in cells) and "Infinity" not in raw:
            names += [name for name, cell in value.items() if type(cell) is float and math.isinf(cell)]
        return names

    def _widen(self, value: dict[str, Any]) -> Iterator[Partition]:
        """Add a row's new columns. If they would make the current partition too large, yield it first."""
        self._all_names |= value.keys()
        if len(self._all_names) > self._limits.max_columns:
            raise TooManyColumns(
                f"row {self._rows.total + 1} brings the table to more than {self._limits.max_columns} columns"
            )
        cells = len(self._names | value) * (len(self._rows.rows) + 1)
        if cells > self._limits.max_partition_cells and self._rows.rows:
            yield self._partition()
        self._names.update(dict.fromkeys(value))

    def _require_dense(self) -> None:
        """Raise ExpandsTooMuch if rows have hardly any columns in common, because their table would be far too
        large."""
        cells = self._rows.total * len(self._all_names)
        if cells > max(_FREE_CELLS, _MAX_CELLS_PER_BYTE * self._bytes_in):
            raise ExpandsTooMuch(
                f"{self._rows.total} rows have {len(self._all_names)} different names between them, and each row has"
                " only a few of these; write names that differ from row to row as values, as in [{name: a, value: 1}]"
            )

    def _partition(self) -> Partition:
        partition = self._rows.take({name: [row.get(name) for row in self._rows.rows] for name in self._names})
        self._names, self._size = {}, 0
        return partition


def read_json_lines(
    source: TextSource, contract: Contract, rows_per_partition: int, limits: Limits, compression: Any
) -> Iterator[Partition]:
    """Read JSON Lines: one object per line, or several without a separator. Blank lines are skipped. Nested values
    become JSON text.

    Raises:
        CompressionBroken, EmptyFile, ExpandsTooMuch, FileTooLarge, JsonNotRows, RecordTooLong, TextUndecodable,
        TooManyColumns, TooManyRows
    """
    found = SourceFormat(type="jsonl", compression=compression, encoding=source.encoding)
    rows = _JsonRows(contract, rows_per_partition, limits, found)
    only = ""
    for line, content in enumerate(_lines(source, limits), start=1):
        raw = content.decode("utf-8", errors="surrogateescape").strip(_SPACE)
        for value in _values_in(raw) if _IS_FOLLOWED.search(raw) else [raw] if raw else ():
            only = "" if rows.total else value
            yield from rows.take(value, line)
    if not rows.total:
        raise EmptyFile("the file contains only blank lines")
    require_row(only, contract)
    yield from rows.rest()


def _values_in(line: str) -> list[str]:
    """Split a line into its objects, because Firehose writes several into one line. Return the line as a whole if it
    contains anything else."""
    values, at = [], 0
    try:
        while at < len(line):
            _, end = _STRUCTURE.raw_decode(line, at)
            values.append(line[at:end])
            at = _end_of_space(line, end)
    except (ValueError, RecursionError):
        return [line]
    return values if all(value.startswith("{") for value in values) else [line]


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
    """Read arrays of objects, element by element, or consecutive objects. If the contract has a `records_path`, the
    rows are the objects at this path inside them. Nested values become JSON text.

    Raises:
        CompressionBroken, ExpandsTooMuch, FileTooLarge, JsonBroken, JsonNotRows, RecordTooLong, TextUndecodable,
        TooManyColumns, TooManyRows
    """
    found = SourceFormat(type="json", compression=compression, encoding=source.encoding)
    rows = _JsonRows(contract, rows_per_partition, limits, found)
    document = _Document(source, limits)
    records_path = tuple(contract.format.records_path.split(".")) if contract.format.records_path else ()
    first, only = document.peek(), ""
    if first not in ("[", "{"):
        raise JsonBroken(f"{document.where()}: a JSON table begins with [ or {{")
    while mark := document.peek():
        if mark != first:
            raise JsonBroken(f"{document.where()}: there is other content after the end of the JSON document")
        if mark == "[":
            yield from _elements(document, rows, records_path)
        elif records_path:
            yield from _records(document, rows, records_path)
        else:
            raw = document.value()
            only = "" if rows.total else raw
            yield from rows.take(raw, document.line_of_value)
    require_row(only, contract)
    yield from rows.rest()


def _elements(document: _Document, rows: _JsonRows, records_path: tuple[str, ...]) -> Iterator[Partition]:
    for mark in document.parts("]"):
        if not rows.total and mark != "{":
            kind = "arrays" if mark == "[" else "single values"
            raise JsonNotRows(
                f"{document.where()}: the array contains {kind}, but each row should be an object with the names of its"
                ' columns, as `to_json(orient="records")` of pandas writes it'
            )
        if records_path and mark == "{":
            yield from _records(document, rows, records_path)
        else:
            raw = document.value()
            yield from rows.take(raw, document.line_of_value)


def _records(document: _Document, rows: _JsonRows, path: tuple[str, ...]) -> Iterator[Partition]:
    """Read the records nested in a JSON object. `path` has the keys that lead to the array of records."""
    where, names = document.where(), []
    for mark in document.parts("}"):
        if mark != '"':
            raise JsonBroken(f"{document.where()}: not JSON: a name is missing")
        name = json.loads(document.value())
        if document.peek() != ":":
            raise JsonBroken(f"{document.where()}: not JSON: a colon is missing")
        document.skip()
        kind = document.peek()
        if name != path[0]:
            document.value()
        elif name in names:
            raise JsonBroken(f"{document.where()}: the object has {name!r} twice")
        elif kind == "{" and path[1:]:
            yield from _records(document, rows, path[1:])
        elif kind == "[" and not path[1:]:
            yield from _elements(document, rows, ())
        else:
            raise JsonNotRows(f"{document.where()}: records_path does not lead to an array of objects here")
        names.append(name)
    if path[0] not in names:
        raise JsonNotRows(
            f"{where}: the object has no {path[0]!r}{did_you_mean(path[0], names)};"
            " correct `records_path` under `format`"
        )


class _Document:
    """A JSON text that is read piece by piece. Earlier pieces do not stay in memory."""

    def __init__(self, source: TextSource, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._at = 0
        self._line = 1
        self._line_start = 0  # the index in the text where the line begins; negative if that part was dropped
        self._counted = 0  # the number of characters whose lines are counted
        self.line_of_value = 1  # the line on which the last value began
        self._is_end = False

    def parts(self, end: str) -> Iterator[str]:
        """Yield the first character of each part of an array or object; the caller must read the part. Raise JsonBroken
        if a comma is missing, or the array or object is not closed."""
        self.skip()
        if self.peek() == end:
            self.skip()
            return
        mark = ","
        while mark == ",":
            yield self.peek()
            mark = self.peek()
            if mark not in (",", end):
                kind = "array" if end == "]" else "object"
                problem = (
                    f"a comma or {end} is missing" if mark else f"the {kind} is not closed; the file seems cut short"
                )
                raise JsonBroken(f"{self.where()}: {problem}")
            self.skip()

    def peek(self) -> str:
        """Return the next character that is not white space; "" at the end."""
        while True:
            self._at = _end_of_space(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def skip(self) -> None:
        """Move on by one character."""
        self._at += 1

    def where(self) -> str:
        """Return `line n, column n` of the current character."""
        line, column = self._position()
        return f"line {line}, column {column}"

    def _position(self) -> tuple[int, int]:
        lines = self._text.count("\n", self._counted, self._at)
        if lines:
            self._line += lines
            self._line_start = self._text.rfind("\n", self._counted, self._at) + 1
        self._counted = self._at
        return self._line, self._at - self._line_start + 1

    def value(self) -> str:
        """Return the text of the next value. Raise JsonBroken if the value is malformed, because its end is then
        unknown."""
        self.peek()
        self.line_of_value, _ = self._position()
        end = self._end_of_value()
        raw = self._text[self._at : end]
        self._at = end
        return raw

    def _end_of_value(self) -> int:
        while True:
            try:
                _, end = _STRUCTURE.raw_decode(self._text, self._at)
            except RecursionError:
                raise JsonBroken(f"{self.where()}: values are nested too deeply") from None
            except ValueError as error:
                if self._is_end:
                    self._at = min(getattr(error, "pos", self._at), len(self._text))
                    problem = getattr(error, "msg", "malformed")
                    raise JsonBroken(f"{self.where()}: not JSON: {problem}") from None
            else:
                # A number at the end of the text may continue in text that has not been read yet.
                if end < len(self._text) or self._is_end:
                    return int(end)
            self._fill()

    def _fill(self) -> bool:
        """Read more text, and return whether there was any. The text in memory at least doubles, so that a long value
        is not scanned too often."""
        if self._is_end:
            return False
        if len(self._text) - self._at > self._limits.max_record_bytes:
            raise RecordTooLong(
                f"{self.where()}: a value is malformed or longer than {self._limits.max_record_bytes} bytes"
            )
        self._position()
        self._line_start -= self._at
        self._text, self._at, self._counted = self._text[self._at :], 0, 0
        content = self._source.read(max(_READ_BYTES, len(self._text)))
        self._is_end = not content
        self._text += self._decoder.decode(content, self._is_end)
        return bool(content)


def _end_of_space(text: str, at: int) -> int:
    space = _SPACES.match(text, at)
    return space.end() if space else at


def _object_in(raw: str) -> dict[str, Any]:
    """Return the object in a row's text. Raise _RowUnfit if the text is not an object that a row can be made from."""
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
    # Half of a surrogate pair, which JSON can escape, cannot be written as UTF-8.
    escaped = "\\ud" in raw or "\\uD" in raw
    if SURROGATE.search(json.dumps(value, ensure_ascii=False) if escaped else raw):
        raise _RowUnfit("undecodable_text")
    if not value:
        raise _RowUnfit("empty_object")
    return value


def _nested_as_written(raw: str) -> dict[str, str]:
    """Return the JSON text of a row's objects and arrays, by name. Numbers are as in the file, such as 1.10 and
    1e400."""
    nested = {name: cell for name, cell in _MARKING.decode(raw).items() if isinstance(cell, dict | list)}
    return {name: _MARKED.sub(r"\1", json.dumps(cell, ensure_ascii=False)) for name, cell in nested.items()}


def _is_number(value: Any) -> bool:
    return type(value) is float and value == value  # NaN, which is missing, differs from itself
