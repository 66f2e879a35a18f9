"""Detect the delimiter and the decimal and thousands separators of a CSV file, unless the contract declares them."""

import csv
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from flows.refinery.contract.model import Contract, FileFormat
from flows.refinery.read.columns import TEXT_TYPES
from flows.refinery.read.csv_numbers import is_ambiguous_number, is_marked_number
from flows.refinery.read.csv_records import lines_of, split_records
from flows.refinery.read.rejections import MarksContradict

csv.field_size_limit(1 << 30)  # fields are bounded by Limits.max_record_bytes before csv sees them

DELIMITERS = ",;\t|"
"""The delimiters that are recognized without a declaration."""

RARE_DELIMITERS = ("~", "^", "\x01", "||", "::", ";;", "~~", "^^", "@@", "##", "|~|", "~|~", "^|^", "|^|", "\t\t")
"""Delimiters that are used only if the contract declares them. If a file seems to have one, a message names the line to
write in the contract."""

_SAMPLED_RECORDS = 200
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?")
_DECIMAL_POINT = re.compile(r"[+-]?(\d*|\d{1,3}(,\d{3})+)\.\d+([eE][+-]?\d+)?")
_COMMA_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+")
_POINT_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+")


class SampleRecord(NamedTuple):
    """A record near the beginning of a file."""

    line: int  # the line of the sample on which the record begins, from 0
    fields: list[str]


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """The delimiters, the quote and the separators in numbers of a CSV file."""

    delimiter: str
    # whether the contract, the file's own `sep=` line or its header shows the delimiter, or no other one is possible
    is_delimiter_proven: bool
    trailing: int  # how many delimiters at the end of each record are not followed by a value
    quote: str
    decimal: str
    thousands: str | None
    is_decimal_proven: bool  # whether the contract or an unambiguous number shows the decimal separator


def dialect_of(sample: str, contract: Contract, named_delimiter: str | None = None) -> CsvDialect:
    """Determine how a CSV file is written. A delimiter or separator that the contract does not declare is detected in
    the sample. Raise MarksContradict if the decimal separator is not declared and differs between numbers.

    Args:
        sample: the beginning of the file, from the header on, in whole lines.
        named_delimiter: the delimiter in the file's `sep=` line.
    """
    given = contract.format
    delimiter = given.delimiter or named_delimiter or _detect_delimiter(sample, contract)
    header, *rows = [record.fields for record in sample_records(sample, delimiter, given)] or [[]]
    trailing = _nameless_at_end(header, rows, given)
    if not given.header:
        header, rows = list(contract.columns), [header, *rows]
    names = names_of(header, trailing)
    has_known = len(names) > 1 and not contract.columns.keys().isdisjoint(names)
    whole = [row for row in rows if len(row) == len(names) + trailing]
    columns = dict(zip(names, zip(*whole, strict=False), strict=False))
    text_columns = {name for name, column in contract.columns.items() if column.type in TEXT_TYPES}
    text_columns |= {
        name for name, values in columns.items() if name not in contract.columns and any(map(is_marked_number, values))
    }
    values = [value for name, column in columns.items() if name not in text_columns for value in column]
    # A declared thousands separator implies the decimal separator.
    decimal = given.decimal or {",": ".", ".": ","}.get(given.thousands or "") or _detect_decimal(values, delimiter)
    return CsvDialect(
        delimiter=delimiter,
        is_delimiter_proven=bool(given.delimiter or named_delimiter or has_known)
        or (len(names) > 1 and other_delimiter(sample, delimiter, given) is None),
        trailing=trailing,
        quote=given.quote,
        decimal=decimal or ".",
        is_decimal_proven=decimal is not None,
        thousands=given.thousands or _detect_thousands(values, decimal or "."),
    )


def _detect_delimiter(sample: str, contract: Contract) -> str:
    """Return the delimiter with which the header has the most columns of the contract or, in a file without a header,
    the first record has one field for each column. Of several, prefer, in this order, one that splits the first record,
    one that is no declared separator in numbers, one with more regular rows, and one with more fields."""
    # A declared separator in numbers is less likely to be the delimiter, unless numbers such as "1,234.50" are quoted.
    in_numbers = {contract.format.thousands, contract.format.decimal}
    marks = [mark for mark in DELIMITERS if mark != contract.format.quote]
    absent = [mark for mark in marks if mark not in sample]  # each of them would give one column, so one is enough
    candidates = [mark for mark in marks if mark not in absent[1:]]
    scores = {}
    for mark in candidates:
        records = [record.fields for record in sample_records(sample, mark, contract.format)]
        header = records[0] if records else []
        lengths = Counter(map(len, records))
        regular = lengths[len(header)] / max(1, len(records))
        is_named = contract.format.header
        known = len(contract.columns.keys() & set(header)) if is_named else int(len(header) == len(contract.columns))
        scores[mark] = (known, len(header) > 1, mark not in in_numbers, regular, len(header))
    return max(candidates, key=lambda mark: scores[mark])


def sample_records(sample: str, delimiter: str, written: FileFormat) -> tuple[SampleRecord, ...]:
    """Return the first records of a sample, without those that cannot be read."""
    return _sample_records(sample, delimiter, written.quote, written.escape)


@lru_cache(maxsize=16)  # called several times for one file
def _sample_records(sample: str, delimiter: str, quote: str, escape: str | None) -> tuple[SampleRecord, ...]:
    records = split_records(lines_of(sample), delimiter, quote, escape)
    found = (SampleRecord(record.first_line, record.fields) for record in records if record.fields)
    return tuple(islice(found, _SAMPLED_RECORDS))


def other_delimiter(sample: str, delimiter: str, written: FileFormat) -> str | None:
    """Return a delimiter other than `delimiter` that splits all records into the same number of fields, which is at
    least two. Return None if there is none."""
    for mark in DELIMITERS:
        if mark in sample and mark not in (delimiter, written.quote):
            lengths = {len(record.fields) for record in sample_records(sample, mark, written)}
            if len(lengths) == 1 and lengths != {1}:
                return mark
    return None


def names_of(header: list[str], trailing: int) -> list[str]:
    """Return a header without its last `trailing` columns, if none of these has a name."""
    ends_too = not any(name.strip() for name in header[len(header) - trailing :])
    return header[: len(header) - trailing] if ends_too else header


def _nameless_at_end(header: list[str], rows: list[list[str]], written: FileFormat) -> int:
    """Return how many columns at the end have neither a name nor values, because each record ends with delimiters. If
    the contract declares `trailing_delimiter`, return 1. If the file has no header, or fewer than half of the first
    rows have as many fields as the header, return 0."""
    if written.trailing_delimiter:
        return 1
    count = 0
    while count < len(header) - 1 and not header[-1 - count].strip():
        count += 1
    if not count:
        return 0
    whole = [row for row in rows if len(row) == len(header)]
    has_value = any(field.strip() for row in whole for field in row[len(header) - count :])
    return 0 if has_value or 2 * len(whole) < len(rows) or not written.header else count


def shows_decimal(text: str, mark: str) -> bool:
    """Return whether a number can be read only with this decimal separator; 1.250 and 1,250 are ambiguous."""
    pattern = _DECIMAL_POINT if mark == "." else _DECIMAL_COMMA
    return mark in text and not is_ambiguous_number(text) and pattern.fullmatch(text.strip()) is not None


def _detect_decimal(values: list[str], delimiter: str) -> str | None:
    """Return the decimal separator of the unambiguous numbers, or None if there are none. Raise MarksContradict if they
    have different separators."""
    has_point = any(shows_decimal(value, ".") for value in values if "." in value)
    has_comma = delimiter != "," and any(shows_decimal(value, ",") for value in values if "," in value)
    if has_point and has_comma:
        raise MarksContradict(
            "some numbers have a decimal point, others a decimal comma; write the right one under `format` in the"
            ' contract, as in `decimal: ","`, and declare the columns of the others as string'
        )
    return "." if has_point else "," if has_comma else None


def _detect_thousands(values: list[str], decimal: str) -> str | None:
    """Return the thousands separator if a number has both separators, as in 1,234.50. The comma in 1,234 could be a
    decimal separator."""
    pattern, mark = (_COMMA_THOUSANDS, ",") if decimal == "." else (_POINT_THOUSANDS, ".")
    return mark if any(pattern.fullmatch(value) for value in values if mark in value) else None
