"""Check whether the rows of a CSV file fit its header. If they do not, and there is a single cause, name it and the
line to write in the contract."""

import json
import re
from collections.abc import Sequence

from flows.refinery.contract.model import Contract
from flows.refinery.read.csv_dialect import (
    DELIMITERS,
    RARE_DELIMITERS,
    CsvDialect,
    SampleRecord,
    names_of,
    other_delimiter,
    sample_records,
)
from flows.refinery.read.detection import text_type
from flows.refinery.read.rejections import NoTable

_VALUE = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}.*|[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{2,4}")
_LOG_LINE = re.compile(r"\W*[0-9]|.*[0-9]:[0-9]{2}\b", re.DOTALL)
_GAP = re.compile(r"\S {2,}\S|\S\t+\S")
# A header field in one of these forms is not a name if most values below it have the same form. Numbers are not listed,
# because they can be names, as in pivot tables.
_RECORDS = tuple(
    re.compile(pattern)
    for pattern in (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{2,4}",
        r"[^@\s]+@[^@\s]+\.[a-z]+",
        r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        r"(?i:true|false)",
        r"\w[\w.-]* ?[:=].*",
        r"(TRACE|DEBUG|INFO|WARN(ING)?|ERROR|FATAL)\b.*",
    )
)
_IF_NONE = "if there is no header, name the `columns`, and write `header: false` under `format`"
_NO_HEADER = f"the header begins with a number or a date; {_IF_NONE}"
_MAX_LINES_BEFORE_HEADER = 50
_REGULAR = 0.9  # the fraction of the rows that must have the same number of fields in a table


def layout_fault(sample: str, dialect: CsvDialect, contract: Contract, first_line: int) -> str | None:
    """Return the reason why most rows do not fit the header, or why the header lacks columns of the contract. Return
    None if they fit, or if no single reason is found.

    Args:
        sample: the beginning of the file, from the header on, in whole lines.
        first_line: the file's line on which the sample begins, from 1.
    """
    records = sample_records(sample, dialect.delimiter, contract.format)
    if not records or _fits(records, dialect, contract):
        return None
    if contract.format.type == "csv" and text_type(sample, is_whole=False) != "csv":
        return "the file is JSON; write `type: auto` under `format`"
    return (
        _other_start_or_delimiter(sample, dialect, contract, first_line)
        or _end_of_rows(records, contract, first_line)
        or (_start_of_header(records[0].fields) if contract.columns and contract.format.header else None)
    )


def require_table(sample: str, dialect: CsvDialect, contract: Contract, fault: str | None) -> None:
    """Raise NoTable for text that is probably not a table, because without a contract that names columns, any text
    could be read as one. The message has the line to write in the contract if the file is a table nevertheless.

    Args:
        sample: the beginning of the file, from the header on, in whole lines.
        fault: the result of `layout_fault`.
    """
    fault = fault or _doubt(sample, dialect, contract)
    if fault:
        raise NoTable(f"this may not be a table: {fault}, in a contract for such files")


def _fits(records: Sequence[SampleRecord], dialect: CsvDialect, contract: Contract) -> bool:
    header, *rows = (record.fields for record in records)
    if contract.format.header:
        names = names_of(header, dialect.trailing)
        is_named = all(name.strip() for name in names)
        if not is_named or _required(contract) - set(names) or (len(names) == 1 and not contract.columns):
            return False
    else:
        names, rows = list(contract.columns), [header, *rows]
    return 2 * list(map(len, rows)).count(len(names) + dialect.trailing) >= len(rows)


def _required(contract: Contract) -> set[str]:
    return {name for name, column in contract.columns.items() if column.required}


# --- another delimiter, or lines before the header --------------------------------------------------------------------


def _other_start_or_delimiter(sample: str, dialect: CsvDialect, contract: Contract, first_line: int) -> str | None:
    given = contract.format
    found: list[tuple[int, bool, int, str]] = []
    for mark in dict.fromkeys([dialect.delimiter, *RARE_DELIMITERS, *DELIMITERS]):
        if mark in sample and given.quote not in mark and given.escape != mark:
            records = sample_records(sample, mark, given)
            start = _start_of_table(records, contract)
            if start is not None:
                found.append((records[start].line, mark != dialect.delimiter, -len(mark), mark))
    if not found:
        return None
    line, is_other, _, mark = min(found)
    lines = [f"skip_lines: {first_line + line - 1}"] if line and given.header else []
    if is_other and (given.delimiter or mark not in DELIMITERS or not line):
        lines.append(f"delimiter: {json.dumps(mark)}")
    if not lines:
        return None
    what = f"the header seems to be on line {first_line + line}" if line else f"the delimiter seems to be {mark!r}"
    return f"{what}; write {' and '.join(f'`{text}`' for text in lines)} under `format`"


def _start_of_table(records: Sequence[SampleRecord], contract: Contract) -> int | None:
    """Return the index of the first record that can be the header of the records after it, or None. In a file without a
    header, return 0 if nearly all records have one field for each column of the contract."""
    fields = [record.fields for record in records]
    if not contract.format.header:
        return 0 if fields and _is_regular(fields, len(contract.columns)) else None
    for start, header in enumerate(fields[:_MAX_LINES_BEFORE_HEADER]):
        if contract.columns:
            if _required(contract) <= set(header) and contract.columns.keys() & set(header):
                return start
        elif _is_header(header, fields[:start], fields[start + 1 :]):
            return start
    return None


def _is_header(header: list[str], before: list[list[str]], rows: list[list[str]]) -> bool:
    names = [name.strip() for name in header]
    if len(names) < 2 or not rows or not all(names) or len(set(names)) < len(names):
        return False
    if any(_VALUE.fullmatch(name) for name in names) or not _is_regular(rows, len(names)):
        return False
    if not before:
        return True
    widths = {_width(record) for record in before}
    return len(names) not in widths and (widths == {1} or any(_VALUE.fullmatch(field) for row in rows for field in row))


def _is_regular(rows: list[list[str]], width: int) -> bool:
    return sum(len(row) == width for row in rows) >= _REGULAR * len(rows)


def _width(record: list[str]) -> int:
    """Return the number of a record's fields, not counting empty fields at its end."""
    return max((place for place, field in enumerate(record, start=1) if field.strip()), default=0)


# --- one field too many, or too few -----------------------------------------------------------------------------------


def _end_of_rows(records: Sequence[SampleRecord], contract: Contract, first_line: int) -> str | None:
    header, *rows = (record.fields for record in records)
    by_columns = (
        "name all columns under `columns`, and write"
        f" `skip_lines: {first_line + records[0].line}` and `header: false` under `format`"
    )
    if not contract.format.header:
        header, rows, by_columns = list(contract.columns), [header, *rows], "name all columns under `columns`"
    if rows and _is_regular(rows, len(header) + 1):
        if not any(row[-1].strip() for row in rows if len(row) == len(header) + 1):
            return (
                "each row ends with a delimiter, but the header does not; write `trailing_delimiter: true` under"
                " `format`"
            )
        return (
            "each row has one field more than the header, as if R wrote row names (in R, set row.names = FALSE);"
            f" {by_columns}"
        )
    if rows and not header[-1].strip() and _is_regular(rows, len(header) - 1):
        return f"the header ends with a delimiter, but the rows do not; {by_columns}"
    return None


def _start_of_header(header: Sequence[str]) -> str | None:
    first = header[0].strip("\ufeff \t")
    if _VALUE.fullmatch(first):
        return _NO_HEADER
    if first.startswith(("//", "--", "/*")):
        return (
            "the file begins with a comment; write `skip_lines: 1`, or how many lines come before the header, under"
            " `format`"
        )
    return None


def _header_like_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    for place, name in enumerate(header):
        below = [row[place].strip() for row in rows if place < len(row)]
        kinds = [kind for kind in _RECORDS if kind.fullmatch(name.strip())]
        if below and any(2 * sum(kind.fullmatch(value) is not None for value in below) > len(below) for kind in kinds):
            return f"column {place + 1} of the header looks like the values below it; {_IF_NONE}"
    return None


# --- any text ---------------------------------------------------------------------------------------------------------


def _doubt(sample: str, dialect: CsvDialect, contract: Contract) -> str | None:
    """Return the reason why text without a layout fault might still not be a table, or None if there is none."""
    given = contract.format
    records = sample_records(sample, dialect.delimiter, given)
    header, *rows = [record.fields for record in records] or [[]]
    names = names_of(header, dialect.trailing)
    if header and (fault := _start_of_header(header) or _header_like_rows(header, rows)):
        return fault
    if 2 * sum(len(row) == len(names) + dialect.trailing for row in rows) < len(rows):
        return (
            "most rows do not have as many fields as the header; write `skip_lines: 1`, or how many lines come before"
            " the header, or the right `delimiter`, under `format`"
        )
    header = [name.strip("\ufeff") for name in header]
    if any(header == [field.strip("\ufeff") for field in row] for row in rows):
        return "the header is repeated as a row; send the files one by one, or declare their columns"
    if given.delimiter is not None:
        return None
    if len(names) > 1:
        if other := other_delimiter(sample, dialect.delimiter, given):
            return (
                f"both {dialect.delimiter!r} and {other!r} may be the delimiter; write the right one as `delimiter`"
                " under `format`"
            )
        return None
    return _doubt_of_lines(sample, [record.fields for record in records], contract)


def _doubt_of_lines(sample: str, records: Sequence[list[str]], contract: Contract) -> str | None:
    """Return the reason why lines without a delimiter might not be a table of one column, or None if there is none."""
    has_gap = [_GAP.search(record[0]) is not None for record in records]
    if records and _LOG_LINE.match(records[0][0]):
        return _NO_HEADER
    if has_gap and has_gap[0] and 2 * sum(has_gap) > len(has_gap):
        return (
            "the columns have a fixed width and no delimiter; export them with a delimiter, or name a single column for"
            " whole lines under `columns`"
        )
    for mark in filter(sample.__contains__, (*DELIMITERS, *RARE_DELIMITERS)):
        widths = [len(record.fields) for record in sample_records(sample, mark, contract.format)]
        if 2 * sum(width > 1 for width in widths) >= len(widths):
            written = f"`delimiter: {json.dumps(mark)}`"
            return f"there is one column, with {mark!r} in most rows; write {written} under `format`"
    return None
