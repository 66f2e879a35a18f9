"""Generates sample files for the contract in flows/contracts/orders: clean files, and files with each type of problem.

The same number of rows, flavour and seed always give the same bytes.
"""

import argparse
import csv
import datetime as dt
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

# What is wrong with a file, and what the pipeline does with it:
Flavour = Literal[
    "clean",  # nothing: every row is published
    # In these three, one row in 25 is quarantined, and the others are published.
    "bad_rows",  # one field too few or too many, no order number, or no date
    "wrong_types",  # words where a number or a date should be
    "bad_ranges",  # an impossible value
    "duplicates",  # one row in 25 repeats the order before it; preprocessing drops it
    # These are rejected as a whole.
    "missing_column",  # the column `quantity` is missing
    "empty",  # no bytes at all
    "header_only",  # a header and no row; the contract expects at least one row
    "not_a_table",  # an image named .csv
    "too_many_bad",  # two rows in five are bad, more than the contract allows
]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
HEADER = ("order_id", "ordered_at", "customer_id", "country", "sku", "quantity", "unit_price", "discount")

_COUNTRIES = ("AT", "BE", "CH", "DE", "ES", "FR", "IT", "NO", "PL", "SE")
_FIRST_ORDER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_EVERY = 25  # one row in this many has the flavour's problem
_MAX_BAD_ROWS = 1 / 5  # the contract's limit, which a single bad row in a file with fewer than five rows exceeds

OrderRow = list[str]


@dataclass(frozen=True, slots=True)
class ExpectedOutcome:
    """The expected outcome of processing a file, where rows = published + quarantined + dropped."""

    rows: int  # data rows in the file
    published: int  # rows that break no rule and are not dropped
    quarantined: int  # rows that break a rule of the contract
    dropped: int  # rows that preprocessing drops, or all rows of a rejected file
    rejected: bool  # whether the whole file is rejected


def write(path: Path, rows: int, flavour: Flavour = "clean", *, seed: int = 0) -> ExpectedOutcome:
    """Write a file with `rows` orders, or with none if the flavour is "empty", "header_only" or "not_a_table", and
    return its expected outcome. Raise ValueError if `rows` is less than 1."""
    if rows < 1:
        raise ValueError(f"rows is {rows}; at least 1 is needed")
    chance = random.Random(seed)  # noqa: S311 sample data, no secret
    if flavour in ("empty", "not_a_table"):
        path.write_bytes(b"" if flavour == "empty" else b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + chance.randbytes(64 * rows))
        return _rejected(0)
    if flavour == "header_only":
        _write_csv(path, [HEADER])
        return _rejected(0)
    orders = [_order(number, chance) for number in range(1, rows + 1)]
    if flavour == "missing_column":
        place = HEADER.index("quantity")
        _write_csv(path, [(*row[:place], *row[place + 1 :]) for row in (HEADER, *orders)])
        return _rejected(rows)
    bad = _spoil(orders, flavour)
    _write_csv(path, [HEADER, *orders])
    if flavour == "duplicates":
        return ExpectedOutcome(rows, rows - bad, quarantined=0, dropped=bad, rejected=False)
    if bad > rows * _MAX_BAD_ROWS:
        return _rejected(rows)
    return ExpectedOutcome(rows, rows - bad, quarantined=bad, dropped=0, rejected=False)


def _order(number: int, chance: random.Random) -> OrderRow:
    ordered_at = _FIRST_ORDER + dt.timedelta(seconds=37 * number + chance.randrange(30))
    return [
        f"ORD-{number:08d}",
        ordered_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        f"{chance.randrange(1_000_000):06d}",
        chance.choice(_COUNTRIES),
        f"SKU-{chance.randrange(500):04d}",
        str(chance.randint(1, 20)),
        f"{chance.uniform(0.5, 250):.2f}",
        chance.choice(("", "", "0.05", "0.1", "0.25")),
    ]


def _with(column: str, value: str) -> Callable[[OrderRow], OrderRow]:
    place = HEADER.index(column)
    return lambda row: [*row[:place], value, *row[place + 1 :]]


# For each flavour, the changes to the rows to spoil. Each row gets the next change, in rotation.
_SPOILS: dict[Flavour, Sequence[Callable[[OrderRow], OrderRow]]] = {
    "bad_rows": [lambda row: row[:-2], lambda row: [*row, "a note"], _with("order_id", ""), _with("ordered_at", "")],
    "wrong_types": [_with("quantity", "three"), _with("ordered_at", "yesterday"), _with("unit_price", "12.50 EUR")],
    "bad_ranges": [
        _with("quantity", "0"),
        _with("quantity", "5000"),
        _with("unit_price", "-1.00"),
        _with("discount", "1.5"),
        _with("country", "XX"),
    ],
    "too_many_bad": [_with("quantity", "-1")],
}


def _spoil(orders: list[OrderRow], flavour: Flavour) -> int:
    """Modify `orders` in place so that some rows have the flavour's problem. Return how many rows were modified."""
    places = list(range(_EVERY - 1, len(orders), _EVERY)) or [len(orders) - 1]
    if flavour == "duplicates":
        places = [place for place in places if place > 0]
        for place in places:
            orders[place] = orders[place - 1]
        return len(places)
    if flavour == "too_many_bad":
        places = [place for place in range(len(orders)) if place % 5 in (0, 1)]
    spoils = _SPOILS.get(flavour)
    if spoils is None:
        return 0
    for turn, place in enumerate(places):
        orders[place] = spoils[turn % len(spoils)](orders[place])
    return len(places)


def _rejected(rows: int) -> ExpectedOutcome:
    return ExpectedOutcome(rows, published=0, quarantined=0, dropped=rows, rejected=True)


def _write_csv(path: Path, lines: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and write one sample file."""
    parser = argparse.ArgumentParser(prog="python -m deployment.samples.orders", description=__doc__)
    parser.add_argument("file", type=Path, help="the CSV file to write")
    parser.add_argument("--rows", type=int, default=1000, help="data rows (default 1000)")
    parser.add_argument("--flavour", choices=FLAVOURS, default="clean", help="the type of problem (default clean)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random values (default 0)")
    given = parser.parse_args(arguments)
    write(given.file, given.rows, given.flavour, seed=given.seed)


if __name__ == "__main__":
    main()
