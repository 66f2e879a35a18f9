"""Random tables, which other modules write to files."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, Literal

Kind = Literal["string", "integer", "number", "boolean", "date", "timestamp", "time", "json"]
KINDS: tuple[Kind, ...] = ("string", "string", "integer", "number", "number", "boolean", "date", "timestamp", "time")

# Strings that programs often mistake for something else.
ODD_TEXTS = (
    *(
        "NA",
        "null",
        "None",
        "nan",
        "NaN",
        "inf",
        "-",
        "#N/A",
        "\\N",
        "007",
        "+49",
        "-0",
        "1.250",
        "1,250",
        "1,5",
        "1.5",
    ),
    *("1e5", "0x10", "1_000", "true", "TRUE", "no", "2024-01-01", "01/02/2024", "12:30", "=1+1", "@a", "-5", "5%"),
    *(
        " x ",
        "a b",
        'say "hi"',
        "it's",
        "x,y",
        "x;y",
        "x|y",
        "a\tb",
        "two\nlines",
        "C:\\x",
        "#",
        "//",
        "[1]",
        '{"a": 1}',
    ),
    *("9007199254740993", "123456789012345678901", "0.1234567890123456789", "1e400", "1,234,567", "١٢", "½", "null "),
)
LETTERS = "abcdefgh XYZ0123456789"


@dataclass
class Column:
    """A column of a random table.

    Attributes:
        name, kind: the name and the contract type of the column.
        values: the values that the file should contain. None is a missing value.
        options: the other options of the column in the contract.
    """

    name: str
    kind: Kind
    values: list[Any]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Written:
    """A random file, and the results that are correct for it.

    Attributes:
        form: the format and compression of the file, such as "csv gzip". Results are counted by it.
        content: the bytes of the file.
        contract: the fields of the contract; None means the default contract.
        columns: the columns in the file.
        texts: for each column, the strings in the file. None if the format stores typed values instead of strings.
        must_fail, may_fail: the row numbers of the rows that must be quarantined, and of those that may be.
        may_reject: the correct codes for a rejection.
        decimal: the decimal separator that Sluice should use.
    """

    form: str
    content: bytes
    contract: dict[str, Any] | None
    columns: list[Column]
    texts: list[list[str]] | None = None
    must_fail: set[int] = field(default_factory=set)
    may_fail: set[int] = field(default_factory=set)
    may_reject: set[str] = field(default_factory=set)
    decimal: str = "."


def a_table(random: Random, letters: str = LETTERS, kinds: tuple[Kind, ...] = KINDS) -> list[Column]:
    """Return two to five columns. The first or the last one, `id`, numbers the rows; the others are random."""
    rows = random.choice([1, 2, 3, 5, 8, 12, 30])
    columns = [Column("id", "integer", list(range(1, rows + 1)))]
    for place in range(random.randint(1, 4)):
        kind = random.choice(kinds)
        missing = random.choice([0, 0, 0.3])
        value = _generator(random, kind, letters)
        values = [None if random.random() < missing else value() for _ in range(rows)]
        columns.append(Column(f"{kind[0]}{place}", kind, values))
    if random.random() < 0.3:
        columns.append(columns.pop(0))
    return columns


def _generator(random: Random, kind: Kind, letters: str) -> Any:
    """Return a function that generates random values of a type, all in one randomly chosen style."""
    style = random.randrange(4)
    return {
        "string": lambda: _text(random, letters, style),
        "integer": lambda: _integer(random, style),
        "number": lambda: _number(random, style),
        "boolean": lambda: random.random() < 0.5,
        "date": lambda: _day(random, style),
        "timestamp": lambda: _moment(random, style),
        "time": lambda: _time(random, style),
        "json": lambda: json.loads(json.dumps({"a": [_integer(random, 0), _text(random, letters, 3)], "b": None})),
    }[kind]


def _text(random: Random, letters: str, style: int) -> str:
    if style == 0 or (style == 1 and random.random() < 0.5):
        return random.choice(ODD_TEXTS)
    return "".join(random.choices(letters, k=random.randint(1, 8))) or "x"


def _integer(random: Random, style: int) -> int:
    digits = (2, 6, 16, 19)[style]
    number = random.randint(-(10**digits), 10**digits)
    return max(-(2**63), min(number, 2**63 - 1))


def _number(random: Random, style: int) -> float | Decimal:
    if style == 0:
        return round(random.uniform(-2000, 2000), 2)
    if style == 1:
        return random.uniform(-1, 1) * 10.0 ** random.randint(-12, 18)
    if style == 2:
        return round(random.uniform(0, 2000), 3)
    digits = "".join(random.choices("0123456789", k=random.choice([3, 15, 17, 22])))
    return Decimal(f"{random.randint(0, 99)}.{digits}")


def _day(random: Random, style: int) -> dt.date:
    first, last = (dt.date(1995, 1, 1), dt.date(2035, 1, 1)) if style else (dt.date(1, 1, 1), dt.date(9999, 12, 31))
    return first + dt.timedelta(days=random.randrange((last - first).days + 1))


def _moment(random: Random, style: int) -> dt.datetime:
    day = _day(random, max(style, 1))
    return dt.datetime.combine(day, _time(random, style), tzinfo=dt.UTC)


def _time(random: Random, style: int) -> dt.time:
    seconds = random.randrange(86_400)
    micros = random.choice([0, 500_000, 123_456]) if style == 3 else 0
    seconds -= seconds % 60 if style == 0 else 0
    return dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60, micros)
