"""Sample files for the contract in flows/contracts/orders: clean ones, and one for each kind of problem.

The same rows, flavour and seed give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Flavour = Literal[
    "clean",
    "bad_rows",
    "wrong_types",
    "bad_ranges",
    "duplicates",
    "missing_column",
    "empty",
    "header_only",
    "not_a_table",
    "too_many_bad",
]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
HEADER = ("order_id", "ordered_at", "customer_id", "country", "sku", "quantity", "unit_price", "discount")

_COUNTRIES = ("AT", "BE", "CH", "DE", "ES", "FR", "IT", "NO", "PL", "SE")
_FIRST_ORDER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_EVERY = 25  # one row in so many has the flavour's fault

OrderRow = list[str]
_Spoil = Callable[[OrderRow, int], OrderRow]


@dataclass(frozen=True, slots=True)
class ExpectedOutcome:
    """The expected outcome for a file: rows = published + quarantined + dropped.

    Attributes:
        rows: data rows in the file.
        published: rows that the contract lets through.
        quarantined: rows that break a rule of the contract.
        dropped: rows that preprocessing drops, or all rows of a rejected file.
        rejected: whether the whole file is rejected.
    """

    rows: int
    published: int
    quarantined: int
    dropped: int
    rejected: bool


def write(path: Path, rows: int, flavour: Flavour = "clean", *, seed: int = 0) -> ExpectedOutcome:
    """Write a file of orders.

    Args:
        path: the CSV file to write.
        rows: data rows, at least one; ignored by flavours without rows.
        flavour: see the function of the same name below.
    """
    if rows < 1:
        raise ValueError(f"rows is {rows}; at least 1 is needed")
    return _WRITERS[flavour](path, rows, random.Random(seed))  # noqa: S311 sample data, no secret


# --- flavours: each with its outcome in the chain -----------------------------------------------------------


def clean(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:
    """Every row is published."""
    _write_csv(path, HEADER, _orders(rows, chance))
    return ExpectedOutcome(rows, published=rows, quarantined=0, dropped=0, rejected=False)


def bad_rows(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:
    """One row in 25 has a field too few, one too many, no order number, or no date: quarantined; the rest published."""
    return _write_spoiled(path, rows, chance, [_short, _long, _without("order_id"), _without("ordered_at")])


def wrong_types(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:
    """One row in 25 has words where a number or a date should be: quarantined as it was; the rest published."""
    spoils = [_with("quantity", "three"), _with("ordered_at", "yesterday"), _with("unit_price", "12.50 EUR")]
    return _write_spoiled(path, rows, chance, spoils)


def bad_ranges(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:
    """One row in 25 has an impossible value: quarantined by the expectation that it fails; the rest published."""
    spoils = [
        _with("quantity", "0"),
        _with("quantity", "5000"),
        _with("unit_price", "-1.00"),
        _with("discount", "1.5"),
        _with("country", "XX"),
    ]
    return _write_spoiled(path, rows, chance, spoils)


def duplicates(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:
    """One row in 25 repeats the order before it: preprocessing drops the repetition; the rest published."""
    orders = _orders(rows, chance)
    repeated = [index for index in _spoiled_places(rows) if index > 0]
    for index in repeated:
        orders[index] = list(orders[index - 1])
    _write_csv(path, HEADER, orders)
    return ExpectedOutcome(rows, rows - len(repeated), quarantined=0, dropped=len(repeated), rejected=False)


def missing_column(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:
    """The column `quantity` is missing: the file is rejected, and the reason names the column."""
    place = HEADER.index("quantity")
    _write_csv(path, _left_out(HEADER, place), [_left_out(order, place) for order in _orders(rows, chance)])
    return _rejected(rows)


def empty(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:  # noqa: ARG001 one signature for all flavours
    """No bytes at all: the file is rejected as empty."""
    path.write_bytes(b"")
    return _rejected(0)


def header_only(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:  # noqa: ARG001
    """A header and no row: the file is rejected, as the contract expects at least one row."""
    _write_csv(path, HEADER, [])
    return _rejected(0)


def not_a_table(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:
    """An image named .csv: the file is rejected because it is in no allowed format."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + chance.randbytes(64 * rows))
    return _rejected(0)


def too_many_bad(path: Path, rows: int, chance: random.Random) -> ExpectedOutcome:
    """At least two rows in five are bad: more than the contract allows, so the whole file is rejected."""
    orders = _orders(rows, chance)
    for index in range(rows):
        if index % 5 in (0, 1):
            orders[index] = _with("quantity", "-1")(orders[index], index)
    _write_csv(path, HEADER, orders)
    return _rejected(rows)


_WRITERS: dict[Flavour, Callable[[Path, int, random.Random], ExpectedOutcome]] = {
    "clean": clean,
    "bad_rows": bad_rows,
    "wrong_types": wrong_types,
    "bad_ranges": bad_ranges,
    "duplicates": duplicates,
    "missing_column": missing_column,
    "empty": empty,
    "header_only": header_only,
    "not_a_table": not_a_table,
    "too_many_bad": too_many_bad,
}


# --- orders -------------------------------------------------------------------------------------------------


def _orders(rows: int, chance: random.Random) -> list[OrderRow]:
    return [_order(number, chance) for number in range(1, rows + 1)]


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


def _write_spoiled(path: Path, rows: int, chance: random.Random, spoils: Sequence[_Spoil]) -> ExpectedOutcome:
    orders = _orders(rows, chance)
    places = _spoiled_places(rows)
    for turn, index in enumerate(places):
        orders[index] = spoils[turn % len(spoils)](orders[index], index)
    _write_csv(path, HEADER, orders)
    bad = len(places)
    if bad > rows / 5:  # the contract's threshold; a file with fewer than five rows always exceeds it
        return _rejected(rows)
    return ExpectedOutcome(rows, published=rows - bad, quarantined=bad, dropped=0, rejected=False)


def _spoiled_places(rows: int) -> list[int]:
    return list(range(_EVERY - 1, rows, _EVERY)) or [rows - 1]


def _short(row: OrderRow, _index: int) -> OrderRow:
    return row[:-2]


def _long(row: OrderRow, index: int) -> OrderRow:
    return [*row, f"note {index}"]


def _with(column: str, value: str) -> _Spoil:
    place = HEADER.index(column)
    return lambda row, _index: [*row[:place], value, *row[place + 1 :]]


def _without(column: str) -> _Spoil:
    return _with(column, "")


def _left_out(row: Sequence[str], place: int) -> OrderRow:
    return [*row[:place], *row[place + 1 :]]


def _rejected(rows: int) -> ExpectedOutcome:
    return ExpectedOutcome(rows, published=0, quarantined=0, dropped=rows, rejected=True)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[OrderRow]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one file, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m deployment.samples.orders", description=__doc__)
    parser.add_argument("file", type=Path, help="the CSV file to write")
    parser.add_argument("--rows", type=int, default=1000, help="data rows (default 1000)")
    parser.add_argument("--flavour", choices=FLAVOURS, default="clean", help="the kind of problem (default clean)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random values (default 0)")
    given = parser.parse_args(arguments)
    write(given.file, given.rows, given.flavour, seed=given.seed)


if __name__ == "__main__":
    main()
