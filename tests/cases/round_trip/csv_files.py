"""Random CSV files, in the dialects that people and programs write, with contracts that declare some of the dialect."""

from __future__ import annotations

import datetime as dt
import json
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from tests.cases.round_trip.compression import compressed
from tests.cases.round_trip.table import KINDS, LETTERS, Column, Written, a_table

_LETTERS_OF = {
    "utf-8": "äéßłЖ中ا€😀\u00a0\u202f",
    "utf-8-sig": "äéßłЖ中ا€😀",
    "utf-16": "äéßłЖ中€",
    "utf-32": "äéßłЖ中€😀",
    "cp1252": "äéß€ãõ",
    "cp1250": "äéßłąęž",
    "latin-1": "äéßãõ",
    "iso8859-2": "äéłąę",
    "cp1251": "Жяюёй",
    "cp437": "äéñ",
    "shift_jis": "表ソ中あ",
    "gbk": "中文编号",
    "koi8-r": "Жяюё",
}
_PROVEN = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
_AMBIGUOUS = re.compile(r"\s*[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}\s*")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?[0-9.]*,[0-9]+(e[+-][0-9]+)?\s*")
_ZONES = ("UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York")
_SINCE_1970 = {"epoch_seconds": 1, "epoch_milliseconds": 1_000, "epoch_microseconds": 1_000_000}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class _Dialect:
    delimiter: str
    quote: str
    escape: str | None
    quotes_all: bool
    line_end: str
    decimal: str
    thousands: str | None
    encoding: str
    skip_lines: int
    header: bool


def csv_file(random: Random) -> Written:
    """Return a random CSV file. If its contract has no format to declare, it may be the default contract."""
    dialect = _a_dialect(random)
    columns = a_table(random, LETTERS + dialect.delimiter + _LETTERS_OF[dialect.encoding], (*KINDS, "json"))
    for column in columns:
        column.values = [_as_encoded(value, dialect.encoding) for value in column.values]
    form = _declared(random, dialect)
    contract = _contract(random, columns, form)
    texts = [[_text_of(random, column, value, dialect) for value in column.values] for column in columns]
    written = Written("csv", b"", contract, columns, texts, decimal=dialect.decimal)
    if contract is not None and "columns" in contract:
        _plant_values(random, written)
    _write(random, dialect, written)
    _allow_refusals(dialect, form, written)
    return written


def _contract(random: Random, columns: list[Column], form: dict[str, Any]) -> dict[str, Any] | None:
    """Return a contract with or without columns, or None for the default contract. Set the options of the columns that
    it declares."""
    if not form and random.random() < 0.4:
        return None
    if random.random() < 0.2 and form.get("header", True):
        return {"format": form}
    for column in columns:
        column.options = _options(random, column)
    return {"format": form, "columns": {column.name: {"type": column.kind, **column.options} for column in columns}}


def _allow_refusals(dialect: _Dialect, form: dict[str, Any], written: Written) -> None:
    """Add the correct reasons to reject the file, and the rows that may be quarantined because of the dialect. Set the
    decimal separator that Sluice should use."""
    texts = written.texts or []
    numbers = [text for column in texts for text in column]
    if "decimal" not in form:
        shown = [text for text in numbers if _DECIMAL_COMMA.fullmatch(text) and not _AMBIGUOUS.fullmatch(text)]
        written.decimal = "," if shown and dialect.delimiter != "," else "."
    if dialect.encoding not in _PROVEN and "encoding" not in form:
        written.may_reject |= {"encoding_unknown"}
    if "decimal" not in form and any(map(_AMBIGUOUS.fullmatch, numbers)):
        written.may_reject |= {"marks_ambiguous"}
    if "decimal" not in form and dialect.delimiter != "," and _show_both_marks(numbers):
        written.may_reject |= {"marks_contradict"}
    if written.contract is None:
        written.may_reject |= {"no_table"}
    elif dialect.decimal != written.decimal or "decimal" not in form:
        # Numbers may fail if Sluice uses another decimal separator than the file, timestamps if none is declared.
        kinds = ("number", "timestamp") if dialect.decimal != written.decimal else ("timestamp",)
        written.may_fail |= {
            row
            for column, written_texts in zip(written.columns, texts, strict=True)
            for row, text in enumerate(written_texts, 1)
            if column.kind in kinds and "," in text
        }


def _a_dialect(random: Random) -> _Dialect:
    delimiter = random.choice([",", ",", ";", "\t", "|", "~", "\x01"])
    decimal = random.choice([".", ".", ","])
    encoding = random.choice([*_PROVEN, *["utf-8"] * 6, *_LETTERS_OF])
    quote = random.choice(['"', '"', '"', "'"])
    swiss = ["'"] if quote == '"' else []
    spaces = [" ", "\u00a0"] if encoding in _PROVEN else [" "]
    return _Dialect(
        delimiter=delimiter,
        quote=quote,
        escape=random.choice([None, None, None, "\\"]),
        quotes_all=random.random() < 0.3,
        line_end=random.choice(["\n", "\n", "\r\n"]),
        decimal=decimal,
        thousands=random.choice([None, None, None, {".": ",", ",": "."}[decimal], *spaces, *swiss]),
        encoding=encoding,
        skip_lines=random.choice([0, 0, 0, 0, 2]),
        header=random.random() > 0.1,
    )


def _as_encoded(value: Any, encoding: str) -> Any:
    """Return a string with `?` for each character that the encoding cannot represent, and other values unchanged."""
    return value.encode(encoding, errors="replace").decode(encoding) if isinstance(value, str) else value


def _declared(random: Random, dialect: _Dialect) -> dict[str, Any]:
    """Return the contract's `format` section. It declares what cannot be detected, and sometimes what can. The encoding
    and the decimal separator are sometimes left out."""
    declares = random.random() < 0.5
    form: dict[str, Any] = {}
    if dialect.delimiter not in ",;\t|" or declares or not dialect.header:
        form["delimiter"] = dialect.delimiter
    if dialect.quote != '"':
        form["quote"] = dialect.quote
    if dialect.escape:
        form["escape"] = dialect.escape
    if dialect.encoding not in _PROVEN and random.random() < 0.9:
        form["encoding"] = dialect.encoding
    if declares or dialect.thousands:
        form["decimal"] = dialect.decimal
    if dialect.thousands:
        form["thousands"] = {"\u00a0": " "}.get(dialect.thousands, dialect.thousands)
    if dialect.skip_lines:
        form["skip_lines"] = dialect.skip_lines
    if not dialect.header:
        form |= {"header": False, "type": "csv"}
    return form


# --- values as strings ------------------------------------------------------------------------------------------------


def _options(random: Random, column: Column) -> dict[str, Any]:
    """Return random contract options for the way in which the values of a declared column are written."""
    if column.kind == "timestamp":
        way = random.choice(["iso", "zone", "format", "offset", *_SINCE_1970])
        if way in _SINCE_1970:
            return {"format": way}
        if way == "zone":
            return {"timezone": random.choice(_ZONES)}
        if way == "format":
            return {"format": random.choice(["%d.%m.%Y %H:%M:%S.%f", "%m/%d/%Y %I:%M:%S.%f %p", "%Y%m%d%H%M%S%f"])}
        if way == "offset":
            return {"format": random.choice(["%Y-%m-%d %H:%M:%S.%f %z", "%d.%m.%Y %H:%M:%S.%f %Z"])}
    if column.kind == "date" and random.random() < 0.5:
        return {"format": random.choice(["%d.%m.%Y", "%m/%d/%Y", "%d %b %Y", "%Y-%j"])}
    if column.kind == "time" and random.random() < 0.3:
        return {"format": random.choice(["%H%M%S%f", "%I:%M:%S.%f %p"])}
    if random.random() < 0.2:
        return {"missing_values": ["", "NULL", "-"]}
    return {}


def _text_of(random: Random, column: Column, value: Any, dialect: _Dialect) -> str:
    if value is None:
        return str(random.choice(column.options.get("missing_values", [""])))
    writers: dict[str, Callable[[Any], str]] = {
        "string": str,
        "integer": lambda number: _number_text(random, Decimal(number), dialect),
        "number": lambda number: _number_text(random, number, dialect),
        "boolean": lambda flag: str(flag).lower(),
        "date": lambda day: _day_text(random, day, column.options),
        "timestamp": lambda moment: _moment_text(random, moment, column.options, dialect),
        "time": lambda time: _time_text(random, time, column.options),
        "json": lambda tree: json.dumps(tree, ensure_ascii=True),
    }
    text = writers[column.kind](value)
    if column.kind == "string" and text in column.options.get("missing_values", [""]):
        column.values[column.values.index(value)] = None
    return text


def _number_text(random: Random, value: float | Decimal, dialect: _Dialect) -> str:
    text = str(value)
    if dialect.thousands and "e" not in text.lower() and random.random() < 0.7:
        whole, point, rest = text.partition(".")
        text = f"{int(whole):,}".replace(",", "\0") + point + rest if int(whole) else text
    return text.replace(".", dialect.decimal).replace("\0", dialect.thousands or "")


def _day_text(random: Random, day: dt.date, options: dict[str, Any]) -> str:
    if "format" in options:
        return _formatted(day, options["format"])
    return random.choice([day.isoformat(), day.isoformat(), f"{day.isoformat()}T00:00:00+02:00", f"{day} 00:00"])


def _formatted(moment: dt.date | dt.time, written: str) -> str:
    """Format a value with strftime and a four-digit year."""
    year = f"{moment.year:04}" if isinstance(moment, dt.date) else ""
    return moment.strftime(written.replace("%Y", year))


def _moment_text(random: Random, moment: dt.datetime, options: dict[str, Any], dialect: _Dialect) -> str:
    written = options.get("format")
    if written in _SINCE_1970:
        micros = (moment - _EPOCH) // dt.timedelta(microseconds=1)
        number = Decimal(micros) * _SINCE_1970[written] / 1_000_000
        return f"{number:f}".replace(".", dialect.decimal)
    if written is not None:
        zone = random.choice(["UTC", "Asia/Tokyo"]) if "%Z" in written else "UTC"
        if "%z" in written:
            return _formatted(moment.astimezone(dt.timezone(dt.timedelta(hours=random.randint(-11, 12)))), written)
        return _formatted(moment.astimezone(zoneinfo.ZoneInfo(zone)), written.replace("%Z", zone))
    local = moment.astimezone(zoneinfo.ZoneInfo(options.get("timezone", "UTC")))
    is_clear = local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset()
    bare = [local.replace(tzinfo=None).isoformat(random.choice("T "))] if is_clear else []
    return random.choice(
        [
            *bare,
            *bare,
            moment.astimezone(dt.timezone(dt.timedelta(hours=random.randint(-11, 12)))).isoformat(),
            f"{moment.replace(tzinfo=None).isoformat()}Z",
            f"{moment.replace(tzinfo=None)} UTC",
        ]
    )


def _time_text(random: Random, time: dt.time, options: dict[str, Any]) -> str:
    if "format" in options:
        return _formatted(time, options["format"])
    text = time.isoformat()
    return text.removeprefix("0") if random.random() < 0.3 else text


def _show_both_marks(texts: list[str]) -> bool:
    """Return whether some strings are like numbers whose last separator is a point, and others like numbers whose last
    separator is a comma."""
    shown = {mark for text in texts for mark in ".," if re.fullmatch(rf"\s*[+-]?[0-9.,]*[{mark}][0-9]+\s*", text)}
    return shown == {".", ","}


# --- faults and bytes -------------------------------------------------------------------------------------------------


def _plant_values(random: Random, written: Written) -> None:
    """In 3 of 10 files, replace a value in some rows with a string that is invalid for its column. Note that these rows
    must be quarantined."""
    typed = [place for place, column in enumerate(written.columns) if column.kind != "string"]
    assert written.texts is not None
    if random.random() < 0.7:
        return
    for row in range(1, len(written.texts[0]) + 1):
        if random.random() < 0.15:
            written.texts[random.choice(typed)][row - 1] = random.choice(["no such value", "12:61", "3rd", "0x"])
            written.must_fail.add(row)


def _write(random: Random, dialect: _Dialect, written: Written) -> None:
    assert written.texts is not None
    lines = [f"title {line}" for line in range(dialect.skip_lines)]
    rows = [list(row) for row in zip(*written.texts, strict=True)]
    for number, row in enumerate(rows, 1):
        if random.random() < 0.01:
            row.append("one too many")
            written.must_fail.add(number)
        elif random.random() < 0.01 and any(row[:-1]):
            row.pop()
            written.must_fail.add(number)
    if 2 * len({number for number, row in enumerate(rows, 1) if len(row) != len(written.columns)}) > len(rows):
        written.may_reject.add("layout_unfit")
    header = [[column.name for column in written.columns]] if dialect.header else []
    lines += [_line(row, dialect) for row in [*header, *rows]]
    if random.random() < 0.05:
        lines.insert(random.randint(dialect.skip_lines + 1, len(lines)), "")  # an empty line is not a row
    text = dialect.line_end.join(lines) + random.choice(["", dialect.line_end])
    content = text.encode(dialect.encoding)
    if dialect.encoding == "utf-8" and random.random() < 0.03 and len(rows) > 1:
        content = content.removesuffix(dialect.line_end.encode()) + b"\xff"
        written.may_reject.add("encoding_unknown")  # unless another letter shows that it is UTF-8
        written.must_fail.add(len(rows))
    written.form, written.content = compressed(random, "csv", content)


def _line(row: list[str], dialect: _Dialect) -> str:
    return dialect.delimiter.join(_field(text, dialect) for text in row)


def _field(text: str, dialect: _Dialect) -> str:
    quote, escape = dialect.quote, dialect.escape
    special = {dialect.delimiter, quote, "\n", "\r", *([escape] if escape else [])}
    if not dialect.quotes_all and not special & set(text):
        return text
    if escape:
        text = text.replace(escape, escape * 2)
    return quote + text.replace(quote, (escape or quote) + quote) + quote
