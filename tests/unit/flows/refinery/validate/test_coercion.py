"""Raw columns are converted to the contract's types. Values that do not fit are reported, never changed silently."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.refinery.contract.model import Column
from flows.refinery.read.partition import SourceFormat
from flows.refinery.validate.coercion import ARROW_TYPES, coerce, to_arrow
from flows.refinery.validate.column_text import Unreadable, as_text, has_no_letters, text_array
from flows.refinery.validate.inference import infer_kind, join_kinds

UNREADABLE = "unreadable"


def read(values: list[Any], kind: str, source_format: SourceFormat | None = None, **options: Any) -> list[Any]:
    """Convert values to a column of this type. Missing values become None, and values that do not fit UNREADABLE."""
    column = Column.model_validate({"type": kind, **options})
    coerced = coerce(pd.Series(values), column, source_format or SourceFormat(type="csv"))
    published = to_arrow(coerced.values, kind).to_pylist()
    return [UNREADABLE if bad else value for bad, value in zip(coerced.unreadable, published, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        (" -7 ", -7),
        ("+7", 7),
        ("3.0", 3),
        ("1e3", 1000),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", UNREADABLE),
        ("2.5", UNREADABLE),
        ("seven", UNREADABLE),
        ("١", UNREADABLE),
        ("", None),
        (" ", None),
        ("0x10", UNREADABLE),
        ("1_000", UNREADABLE),
        ("+-7", UNREADABLE),
    ],
)
def test_a_string_is_an_integer_or_unreadable(text: str, expected: Any) -> None:
    assert read([text, "not a number"], "integer") == [expected, UNREADABLE]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1e-3", -0.001),
        ("1e400", UNREADABLE),
        ("inf", UNREADABLE),
        ("nan", UNREADABLE),
    ],
)
def test_a_string_is_a_finite_number_or_unreadable(text: str, expected: Any) -> None:
    assert read([text, "x"], "number") == [expected, UNREADABLE]


def test_numbers_are_read_only_with_the_separators_of_the_file() -> None:
    german = SourceFormat(type="csv", decimal=",", thousands=".")
    assert read(["1.234,5", "1.234", "1,5", "1.2", "x"], "number", german) == [
        1234.5,
        1234.0,
        1.5,
        UNREADABLE,
        UNREADABLE,
    ]
    english = SourceFormat(type="csv", thousands=",")
    assert read(["1,234", "12,34", "-1,234,567", "x"], "integer", english) == [1234, UNREADABLE, -1234567, UNREADABLE]


def test_only_whole_floats_below_2_to_the_53_are_read_as_integers() -> None:
    assert read([1.0, None, 2.5, 2.0**60], "integer") == [1, None, UNREADABLE, UNREADABLE]


def test_infinite_numbers_of_typed_formats_are_unreadable() -> None:
    assert read([1.5, np.inf, None], "number") == [1.5, UNREADABLE, None]


@pytest.mark.parametrize("values", [["Yes", "no", "TRUE", "f", "1", "0"], ["y", "N", "t", "False", "1.0", "0.0"]])
def test_usual_words_are_booleans(values: list[str]) -> None:
    assert read([*values, "maybe"], "boolean") == [True, False, True, False, True, False, UNREADABLE]


def test_ones_and_zeros_are_booleans_and_other_numbers_are_not() -> None:
    assert read([1, 0, 2], "boolean") == [True, False, UNREADABLE]
    assert read([True, False], "boolean") == [True, False]


def test_timestamps_are_kept_in_utc_whatever_zone_they_are_written_in() -> None:
    values = ["2024-07-01T12:00:00Z", "2024-07-01 12:00:00+02:00", "2024-07-01 12:00", "2024-07-01", "July 1st"]
    noon = dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
    expected = [noon, noon - dt.timedelta(hours=2), noon, noon - dt.timedelta(hours=12), UNREADABLE]
    assert read(values, "timestamp") == expected


def test_a_timestamp_without_a_zone_is_in_the_columns_zone() -> None:
    values = ["2024-07-01 12:00:00", "2024-07-01T12:00:00Z", "2024-07-01"]
    ten = dt.datetime(2024, 7, 1, 10, tzinfo=dt.UTC)
    expected = [ten, ten + dt.timedelta(hours=2), ten - dt.timedelta(hours=12)]
    assert read(values, "timestamp", timezone="Europe/Berlin") == expected


def test_a_local_time_that_clocks_skip_or_repeat_is_unreadable() -> None:
    values = ["2024-03-31 02:30:00", "2024-10-27 02:30:00"]
    assert read(values, "timestamp", timezone="Europe/Berlin") == [UNREADABLE, UNREADABLE]


@pytest.mark.parametrize("value", ["2024", "-3", "2024-02-30", "2024-13-01", "12:00", "1720000000", "0000-01-01"])
def test_a_value_without_a_valid_date_is_not_a_timestamp(value: str) -> None:
    assert read([value, "x"], "timestamp") == [UNREADABLE, UNREADABLE]


def test_a_value_with_nanoseconds_does_not_limit_the_years_of_the_others() -> None:
    values = ["9999-12-31", "2024-07-01T12:00:00.123456789"]
    assert [moment.year for moment in read(values, "timestamp")] == [9999, 2024]


@pytest.mark.parametrize(
    ("zone", "hours", "last"), [("America/New_York", 5, "9999-12-31T23:00"), ("Asia/Tokyo", -9, "0001-01-01T08:59")]
)
def test_the_ends_of_the_calendar_are_read_in_every_zone(zone: str, hours: int, last: str) -> None:
    noon = [dt.datetime(9999, 12, 31, 12, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)]
    expected = [*(moment + dt.timedelta(hours=hours) for moment in noon), UNREADABLE]
    assert read(["9999-12-31T12:00", "2024-01-01T12:00", last], "timestamp", timezone=zone) == expected


def test_the_sign_of_zero_in_csv_does_not_depend_on_the_other_numbers() -> None:
    for others in (["1"], ["1.5"]):
        assert str(read(["-0", *others], "number")[0]) == "0.0"


def test_dates_are_whole_days() -> None:
    assert read(["2024-07-01", "20240702", "2024-07-01T10:00"], "date") == [
        dt.date(2024, 7, 1),
        dt.date(2024, 7, 2),
        UNREADABLE,
    ]
    assert read(["31.12.2024", "12/31/2024"], "date", format="%d.%m.%Y") == [dt.date(2024, 12, 31), UNREADABLE]


def test_times_of_day_are_read() -> None:
    assert read(["08:00", "23:59:59.5", "24:00", "8:00"], "time") == [
        dt.time(8),
        dt.time(23, 59, 59, 500000),
        UNREADABLE,
        dt.time(8),
    ]
    assert read(["0830"], "time", format="%H%M") == [dt.time(8, 30)]


@pytest.mark.parametrize(
    ("values", "written", "expected"),
    [
        (
            ["2024-366", "2023-365", "2024-1"],
            "%Y-%j",
            [dt.date(2024, 12, 31), dt.date(2023, 12, 31), dt.date(2024, 1, 1)],
        ),
        (["2023-366", "2024 366"], "%Y-%j", [UNREADABLE, UNREADABLE]),
        (["2024 01 1", "2024 53 6"], "%Y %U %w", [dt.date(2024, 1, 8), UNREADABLE]),
        (["1.1.1961 0:0:0", "31.12.2016 23:59:60"], "%d.%m.%Y %H:%M:%S", [dt.date(1961, 1, 1), UNREADABLE]),
        (["1.1.1961 +01:00", "1.1.1961 Z"], "%d.%m.%Y %z", [dt.date(1961, 1, 1)] * 2),
    ],
)
def test_a_day_that_its_year_does_not_have_is_unreadable(values: list[str], written: str, expected: list[Any]) -> None:
    assert read(values, "date", format=written) == expected


def test_a_second_that_its_minute_does_not_have_is_unreadable() -> None:
    values = ["08:00:60.5", "08:00:00.6", "08:01:01.60", "08:00:00.612345678"]
    expected = [UNREADABLE, dt.time(8, 0, 0, 600000), dt.time(8, 1, 1, 600000), dt.time(8, 0, 0, 612345)]
    assert read(values, "time", format="%H:%M:%S.%f") == expected
    zoned = ["2016-12-31 23:59:60 +0100", "1960-01-01 00:00:00 +0100"]
    assert read(zoned, "timestamp", format="%Y-%m-%d %H:%M:%S %z") == [
        UNREADABLE,
        dt.datetime(1959, 12, 31, 23, tzinfo=dt.UTC),
    ]


def test_timestamps_outside_the_calendar_are_unreadable_in_any_unit() -> None:
    for unit in ("s", "ms", "us"):
        far = pd.Series(np.array([2**52 if unit == "s" else 2**62, 0], dtype=f"datetime64[{unit}]"))
        for values in (far, far.dt.tz_localize("UTC")):
            coerced = coerce(values, Column(type="timestamp"))
            assert list(coerced.unreadable) == [True, False]


def test_json_is_checked_and_kept_as_a_string() -> None:
    assert read(['{"a": 1}', "{", None], "json") == ['{"a": 1}', UNREADABLE, None]
    assert read([{"a": 1}, [2]], "json") == ['{"a": 1}', "[2]"]
    long = f"[{'1' * 5_000}, 1e400]"
    assert read([long, "[NaN]", "-Infinity", "[" * 990 + "]" * 990, "[" * 90_000], "json") == [long, *[UNREADABLE] * 4]


def test_strings_are_never_changed() -> None:
    assert read(["007", " x ", None, ""], "string") == ["007", " x ", None, ""]
    assert read([1, "x", 2.5], "string") == ["1", "x", "2.5"]


def test_strings_that_were_unreadable_are_set_aside_in_the_next_partition() -> None:
    values, unreadable = pd.Series(["1.5", "unknown"] * 5_000), Unreadable()
    assert coerce(values, Column(type="number"), SourceFormat(type="csv"), unreadable).unreadable.sum() == 5_000
    assert has_no_letters(unreadable.set_aside(text_array(values)))  # so the column is cast in one operation


@pytest.mark.parametrize("kind", sorted(ARROW_TYPES))
def test_a_column_without_rows_or_values_can_have_any_type(kind: str) -> None:
    for values in ([], [None, None]):
        assert read(values, kind) == values
    assert coerce(pd.Series([None, None]), Column(type=kind)).array.type == ARROW_TYPES[kind]


def test_whole_numbers_are_written_without_a_decimal_point() -> None:
    assert list(as_text(pd.Series([1.0, np.nan, 2.5])))[::2] == ["1", "2.5"]
    for values in ([10_000_000_000], [10_000_000_000, 0.5], [10_000_000_000, "x"], [1e10, True]):
        assert as_text(pd.Series(values))[0] == "10000000000"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "integer"),
        ([1.0, None], "integer"),
        ([1.5, 2], "number"),
        (["a"], "string"),
        ([True, False], "boolean"),
        ([True, None], "boolean"),
        ([{"a": 1}, "x"], "json"),
        ([None, None], None),
        ([], None),
        ([2**63], "string"),
        ([-(2**63)], "great_integer"),
        ([pd.Timestamp("2024-01-01")], "timestamp"),
    ],
)
def test_the_type_of_an_undeclared_column_is_that_of_its_values(values: list[Any], kind: str | None) -> None:
    assert infer_kind(pd.Series(values)) == kind


@pytest.mark.parametrize(("values", "kind"), [([2**53, 2.0, None], "great_integer"), ([2**53, 1.5], "string")])
def test_integers_beyond_exact_floats_are_kept_apart_from_other_numbers(values: list[Any], kind: str) -> None:
    assert infer_kind(pd.Series(values, dtype=object)) == kind


def test_joining_types_does_not_depend_on_their_order() -> None:
    kinds: list[Any] = [None, "integer", "great_integer", "number", "string", "boolean", "timestamp"]
    for one in kinds:
        for other in kinds:
            assert join_kinds(one, other) == join_kinds(other, one)
            for third in kinds:
                left = join_kinds(join_kinds(one, other), third)
                assert left == join_kinds(one, join_kinds(other, third))
