"""Cases with strings that become typed values: numbers, missing values, and dates and times."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.cases.case import Case


def _column(
    name: str,
    texts: Sequence[str],
    right: Sequence[Any],
    declared: Mapping[str, Any] | str | None = None,
    form: Mapping[str, Any] | None = None,
    *,
    kind: str,
    quarantined: Sequence[int] = (),
    mentions: Sequence[str] = (),
) -> Case:
    """Return a case whose CSV file has two columns: `id`, which numbers the rows, and `v`, with these strings."""
    content = "".join(["id;v\n", *(f"{place};{text}\n" for place, text in enumerate(texts, 1))])
    ids = [place for place in range(1, len(texts) + 1) if place not in quarantined]
    contract = None if declared is None else {"columns": {"id": "integer", "v": declared}, "format": form or {}}
    return Case(
        kind, name, content.encode(), {"id": ids, "v": right}, contract, quarantined=quarantined, mentions=mentions
    )


def _json_lines(*values: Any) -> bytes:
    return "".join(json.dumps({"v": value}) + "\n" for value in values).encode()


_MISSING = (
    _column("NA of Namibia", ["NA", "DE", "FR"], ["NA", "DE", "FR"], kind="missing"),
    _column("None and null among strings", ["None", "null", "Ann", ""], ["None", "null", "Ann", None], kind="missing"),
    _column("nothing but NA", ["NA", "NA"], ["NA", "NA"], kind="missing"),
    _column("NA among codes", ["NA", "01234", "98765"], ["NA", "01234", "98765"], kind="missing"),
    _column("NA among numbers", ["NA", "5", "", "7"], [None, 5, None, 7], kind="missing"),
    _column("\\N among numbers", ["\\N", "5.5"], [None, 5.5], kind="missing"),
    _column("\\N among strings", ["\\N", "x"], ["\\N", "x"], kind="missing"),
    _column("NA among booleans", ["true", "NA", "false"], [True, None, False], kind="missing"),
    _column("NA among integers beyond 2^53", ["NA", "9007199254740993"], [None, 9007199254740993], kind="missing"),
    _column("spaces among numbers", [" ", "5", "  7 "], [None, 5, 7], kind="missing"),
    _column("spaces among declared numbers", [" ", "1.5", " 2.5"], [None, 1.5, 2.5], "number", kind="missing"),
    _column("spaces among strings", [" ", "x"], [" ", "x"], kind="missing"),
    _column(
        "declared missing values",
        ["-", "5", "#N/A", "n.a.", "-999", "\\N"],
        [None, 5, None, None, None, None],
        {"type": "integer", "missing_values": ["-", "#N/A", "n.a.", "-999", "\\N"]},
        kind="missing",
    ),
    Case(
        "missing",
        "NA long after numbers, then a string",
        ("v,w\n" + "1,a\n" * 50_000 + "NA,b\n" + "x,c\n").encode(),
        {"v": ["1"] * 50_000 + ["NA", "x"], "w": ["a"] * 50_000 + ["b", "c"]},
    ),
    Case("missing", "NA among JSON numbers", _json_lines("NA", 1.5), {"v": [None, 1.5]}),
    Case("missing", "NA among JSON strings", _json_lines("NA", "DE"), {"v": ["NA", "DE"]}),
)

_DIGITS = (
    *(
        _column(name, [text, "1.5"], [text, "1.5"], kind="digits")
        for name, text in {
            "more before the decimal point than a float keeps": "12345678901234567.89",
            "more after the decimal point than a float keeps": "0.123456789012345678",
            "nearer to 0 than any float": "1.5e-400",
            "so near to 0 that a float loses digits": "1.23456789012e-320",
        }.items()
    ),
    _column("all that a float keeps", ["0.12345678901234568", "1.5"], [0.12345678901234568, 1.5], kind="digits"),
    _column("a float with 17 digits", ["0.10000000000000001", "1.5"], [0.1, 1.5], kind="digits"),
    _column("more, declared as a number", ["0.123456789012345678"], [0.12345678901234568], "number", kind="digits"),
    _column("codes that look like numbers", ["12E3", "1e10", "00E1"], ["12E3", "1e10", "00E1"], kind="digits"),
    _column("a code long after numbers", [*40_000 * ["1.5"], "12E3"], [*40_000 * ["1.5"], "12E3"], kind="digits"),
    _column("exponents as programs write them", ["1.2E4", "1e+16", "1.5"], [12000.0, 1e16, 1.5], kind="digits"),
    _column("days and months that look like decimals", ["01.02", "15.10"], ["01.02", "15.10"], kind="digits"),
    Case(
        "digits",
        "more than a float keeps, in JSON",
        b'{"v": 12345678901234567.89, "w": 1.5}\n{"v": 1.5, "w": 0.25}\n',
        {"v": ["12345678901234567.89", "1.5"], "w": [1.5, 0.25]},
    ),
    Case("digits", "nearer to 0 than any float, in JSON", b'{"v": 1e-400}\n{"v": 2}\n', {"v": ["1e-400", "2"]}),
)

_FRENCH = {"decimal": ",", "thousands": " "}
_SPACED = (
    *(
        _column(
            f"{name} as thousands separators",
            [f"1{sign}234,56", "12,5", f"1{sign}000{sign}000"],
            [1234.56, 12.5, 1000000.0],
            "number",
            form=_FRENCH | {"thousands": written},
            kind="separators",
        )
        for name, sign, written in (
            ("no-break spaces", "\u00a0", " "),
            ("narrow no-break spaces", "\u202f", " "),
            ("thin spaces", "\u2009", " "),
            ("narrow no-break spaces, declared exactly,", "\u202f", "\u202f"),
            ("spaces", " ", "\u00a0"),
            ("Swiss apostrophes", "\u2019", "'"),
        )
    ),
    _column(
        "a space before two digits only",
        ["1\u202f23", "5"],
        [5.0],
        "number",
        _FRENCH,
        kind="separators",
        quarantined=[1],
    ),
)

_UTC = dt.UTC


def _noon(hour: int = 12, month: int = 7, day: int = 1) -> dt.datetime:
    return dt.datetime(2024, month, day, hour, tzinfo=_UTC)


_MOMENTS = (
    _column(
        "names of time zones",
        ["2024-07-01 12:00 UTC", "2024-07-01 12:00 EST", "2024-01-01 12:00 CET", "2024-07-01 12:00 Europe/Berlin"],
        [_noon(), _noon(17), _noon(11, month=1), _noon(10)],
        {"type": "timestamp", "format": "%Y-%m-%d %H:%M %Z", "timezone": "Europe/Berlin"},
        kind="dates and times",
    ),
    _column(
        "the name of a time zone after fractions of seconds",
        ["01.07.2024 21:00:00.5 Asia/Tokyo"],
        [_noon().replace(microsecond=500_000)],
        {"type": "timestamp", "format": "%d.%m.%Y %H:%M:%S.%f %Z"},
        kind="dates and times",
    ),
    _column(
        "names of time zones that are unknown, or ambiguous at that time",
        [
            *("2024-07-01 12:00 CET", "2024-07-01 12:00 PST", "2024-07-01 12:00 utc"),
            *("2024-10-27 02:30 Europe/Berlin", "2024-07-01 12:00 GMT"),
        ],
        [_noon()],
        {"type": "timestamp", "format": "%Y-%m-%d %H:%M %Z"},
        kind="dates and times",
        quarantined=[1, 2, 3, 4],
    ),
    _column(
        "dates with an offset",
        [
            *("2024-01-01", "2024-01-02 00:00:00", "2024-01-03 10:00", "2024-01-04T22:00:00-02:00"),
            *("2024-01-05T00:00:00+02:00", "2024-01-06T00:00:00Z", "2024-01-07T00:00:00+99:99"),
        ],
        [dt.date(2024, 1, day) for day in (1, 2, 5, 6)],
        "date",
        kind="dates and times",
        quarantined=[3, 4, 7],
    ),
    _column(
        "dates with an offset, by format",
        ["05.01.2024 00:00 +0200", "06.01.2024 22:00 -0200"],
        [dt.date(2024, 1, 5)],
        {"type": "date", "format": "%d.%m.%Y %H:%M %z"},
        kind="dates and times",
        quarantined=[2],
    ),
    _column(
        "days that are not in the calendar",
        ["10000-01-01", "0000-01-01", "99999-12-31", "2024-02-30", "9999-12-31", "0001-01-01"],
        [dt.date(9999, 12, 31), dt.date(1, 1, 1)],
        "date",
        kind="dates and times",
        quarantined=[1, 2, 3, 4],
    ),
    _column(
        "hours with one digit, and UTC",
        ["2024-07-01 7:05", "2024-07-01 12:00:00 UTC", "2024-07-01 12:00 GMT", "2024-07-01 12:00 XYZ"],
        [dt.datetime(2024, 7, 1, 5, 5, tzinfo=_UTC), _noon(), _noon()],
        {"type": "timestamp", "timezone": "Europe/Berlin"},
        kind="dates and times",
        quarantined=[4],
    ),
    _column(
        "times with one digit",
        ["7:05", "07:05:06.5", "24:00", "7:5"],
        [dt.time(7, 5), dt.time(7, 5, 6, 500_000)],
        "time",
        kind="dates and times",
        quarantined=[3, 4],
    ),
    _column(
        "AM and PM",
        ["2024-07-01 7:05 PM", "2024-07-01 12:00 AM", "2024-07-01 13:00 PM"],
        [dt.datetime(2024, 7, 1, 19, 5, tzinfo=_UTC), dt.datetime(2024, 7, 1, tzinfo=_UTC)],
        {"type": "timestamp", "format": "%Y-%m-%d %I:%M %p"},
        kind="dates and times",
        quarantined=[3],
    ),
)

_MOMENT = dt.datetime(2024, 1, 5, 10, tzinfo=_UTC)
_BEFORE_1970 = dt.datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=_UTC)
_EPOCHS = {
    "epoch_seconds": ("1704448800", "-1.5", "1704448800.123456", "1704448800000"),
    "epoch_milliseconds": ("1704448800000", "-1500", "1704448800123.456", "1704448800000000"),
    "epoch_microseconds": ("1704448800000000", "-1500000", "1704448800123456", "1704448800000000000"),
}
_SINCE_1970 = tuple(
    Case(
        "epochs",
        f"{name} in {where}",
        content.encode(),
        {"t": [_MOMENT, _BEFORE_1970, _MOMENT.replace(microsecond=123_456)]},
        {"columns": {"t": {"type": "timestamp", "format": name}}},
        quarantined=(4, 5),
    )
    for name, numbers in _EPOCHS.items()
    for where, content in (
        ("CSV", "t\n" + "\n".join([*numbers, "2024-01-05"])),
        ("JSON", "".join(f'{{"t": {number}}}\n' for number in [*numbers, '"/Date(1704448800000)/"'])),
    )
)

CASES = (*_MISSING, *_DIGITS, *_SPACED, *_MOMENTS, *_SINCE_1970)
