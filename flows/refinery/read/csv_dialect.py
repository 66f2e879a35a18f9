"""How a CSV file is written: its delimiter, decimal and thousands marks, where the contract does not say."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import dataclass

from flows.refinery.contract.model import Contract
from flows.refinery.read.columns import TEXT_TYPES
from flows.refinery.read.csv_numbers import is_ambiguous_number, is_marked_number
from flows.refinery.read.rejections import MarksContradict, NoTable

csv.field_size_limit(1 << 30)  # fields are bounded by Limits.max_record_bytes before csv sees them

_DELIMITERS = ",;\t|"
_RARE_DELIMITERS = _DELIMITERS + "~^"
_VALUE = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}.*|[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{2,4}")
_SAMPLED_RECORDS = 200
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?")
_DECIMAL_POINT = re.compile(r"[+-]?(\d*|\d{1,3}(,\d{3})+)\.\d+([eE][+-]?\d+)?")
_COMMA_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+")
_POINT_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+")


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How the file is written.

    Attributes:
        is_decimal_proven: whether the contract or an unambiguous number shows the decimal mark.
        text_columns: columns that must not be read as numbers, as far as the file's beginning shows.
    """

    delimiter: str
    quote: str
    decimal: str
    thousands: str | None
    is_decimal_proven: bool
    text_columns: frozenset[str]


def dialect_of(sample: str, contract: Contract) -> CsvDialect:
    """Find out how a CSV is written, from the contract first and the sample second.

    Args:
        sample: the file's beginning, header first, in whole lines.
    """
    given = contract.format
    delimiter = given.delimiter or _detect_delimiter(sample, contract)
    header, *rows = _records(sample, delimiter, given.quote) or [[]]
    if not given.header:
        header, rows = list(contract.columns), [header, *rows]
    columns = dict(zip(header, zip(*(row for row in rows if len(row) == len(header)), strict=False), strict=False))
    text_columns = {name for name, column in contract.columns.items() if column.type in TEXT_TYPES}
    text_columns |= {
        name for name, values in columns.items() if name not in contract.columns and any(map(is_marked_number, values))
    }
    values = [value for name, column in columns.items() if name not in text_columns for value in column]
    # With a given thousands mark of ",", 1,234 is no decimal.
    decimal = given.decimal or {",": ".", ".": ","}.get(given.thousands or "") or _detect_decimal(values, delimiter)
    return CsvDialect(
        delimiter=delimiter,
        quote=given.quote,
        decimal=decimal or ".",
        is_decimal_proven=decimal is not None,
        thousands=given.thousands or _detect_thousands(values, decimal or "."),
        text_columns=frozenset(text_columns),
    )


def require_table(sample: str, dialect: CsvDialect) -> None:
    """Refuse text that is hardly a table: where no contract names the columns, any text could be taken for one.

    Args:
        sample: the file's beginning, header first, in whole lines.

    Raises:
        NoTable: with what to declare.
    """
    header, *rows = _records(sample, dialect.delimiter, dialect.quote) or [[]]
    regular = sum(len(row) == len(header) for row in rows)
    others = [mark for mark in _DELIMITERS if mark != dialect.delimiter and _is_regular(sample, mark, dialect.quote)]
    unsplit = [mark for mark in _RARE_DELIMITERS if len(header) == 1 and _splits_most(sample, mark, dialect.quote)]
    names = [name.strip("\ufeff") for name in header]
    fault = None
    if _VALUE.fullmatch(names[0].strip()):
        fault = (
            "the header begins with a number or a date; if there is none, write `header: false` and name the `columns`"
        )
    elif names[0].startswith(("//", "--", "/*")):
        fault = "the file begins with a comment; write `skip_lines: 1`, or how many lines come before the header"
    elif regular < len(rows) / 2:
        fault = (
            "most rows have not as many fields as the header; write `skip_lines: 1`, or how many lines come before the"
            " header, or the right `delimiter`"
        )
    elif any(names == [field.strip("\ufeff") for field in row] for row in rows):
        fault = "the header comes again as a row; send the files one by one"
    elif others and len(header) > 1:
        fault = f"both {dialect.delimiter!r} and {others[0]!r} may be the delimiter; write the right one as `delimiter`"
    elif unsplit:
        fault = (
            f"there is one column, with {unsplit[0]!r} in most rows; write `delimiter: {json.dumps(unsplit[0])}`, and"
            " `skip_lines` where lines come before the header"
        )
    if fault:
        raise NoTable(f"this may be no table: {fault}, under `format` in a contract for such files")


def _is_regular(sample: str, delimiter: str, quote: str) -> bool:
    lengths = {len(record) for record in _records(sample, delimiter, quote)}
    return len(lengths) == 1 and lengths != {1}


def _splits_most(sample: str, delimiter: str, quote: str) -> bool:
    records = _records(sample, delimiter, quote)
    return 2 * sum(len(record) > 1 for record in records) >= len(records)


def _detect_delimiter(sample: str, contract: Contract) -> str:
    """The candidate that finds most of the contract's columns, then the most regular rows, then the most fields."""
    # Numbers with such a mark in them may be in quotes: "1,234.50" in a file with commas.
    in_numbers = {contract.format.thousands, contract.format.decimal}
    candidates = [mark for mark in _DELIMITERS if mark != contract.format.quote]
    scores = {}
    for mark in candidates:
        records = _records(sample, mark, contract.format.quote)
        header = records[0] if records else []
        lengths = Counter(len(record) for record in records)
        regular = lengths[len(header)] / max(1, len(records))
        is_named = contract.format.header
        known = len(contract.columns.keys() & set(header)) if is_named else int(len(header) == len(contract.columns))
        scores[mark] = (known, len(header) > 1, mark not in in_numbers, regular, len(header))
    return max(candidates, key=lambda mark: scores[mark])


def _records(sample: str, delimiter: str, quote: str) -> list[list[str]]:
    found: list[list[str]] = []
    reader = csv.reader(sample.split("\n"), delimiter=delimiter, quotechar=quote)
    while len(found) < _SAMPLED_RECORDS:
        try:
            record = next(reader, None)
        except csv.Error:
            continue
        if record is None:
            break
        if record:
            found.append(record)
    return found


def shows_decimal(text: str, mark: str) -> bool:
    """Whether a text is a number that can only be read with this decimal mark; 1.250 and 1,250 can be read in two."""
    pattern = _DECIMAL_POINT if mark == "." else _DECIMAL_COMMA
    return not is_ambiguous_number(text) and pattern.fullmatch(text.strip()) is not None


def _detect_decimal(values: list[str], delimiter: str) -> str | None:
    """The mark that unambiguous numbers show; None where there is none.

    Raises:
        MarksContradict: some numbers show one mark, others the other.
    """
    has_point = any(shows_decimal(value, ".") for value in values)
    has_comma = delimiter != "," and any(shows_decimal(value, ",") for value in values)
    if has_point and has_comma:
        raise MarksContradict(
            "some numbers have a decimal point, others a decimal comma; write the right one under `format` in the"
            ' contract, as in `decimal: ","`, and declare the columns of the others as string'
        )
    return "." if has_point else "," if has_comma else None


def _detect_thousands(values: list[str], decimal: str) -> str | None:
    """Only where a number shows both marks, as in 1,234.50: alone, 1,234 could be a decimal."""
    pattern, mark = (_COMMA_THOUSANDS, ",") if decimal == "." else (_POINT_THOUSANDS, ".")
    return mark if any(map(pattern.fullmatch, values)) else None
