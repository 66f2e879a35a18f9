"""Convert strings, and the dates in typed formats such as Parquet, to timestamps, dates and times of day. In the names
here, a "moment" is a date or a timestamp."""

import datetime as dt
import functools
import re
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flows.refinery.contract.model import Column
from flows.refinery.contract.time_formats import EPOCHS, names_a_zone
from flows.refinery.read.partition import SourceFormat
from flows.refinery.validate.column_text import (
    TEXT,
    Unreadable,
    arrow_array,
    as_text,
    pandas_column,
    read_texts,
    text_array,
)
from flows.refinery.validate.numbers import plain_numbers

_TIME = r"^([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?$"
_ZONE = r"([Tt ][0-9:.,]+)\s*([Zz]|[+-][0-9]{2}:?([0-9]{2})?)\s*$"
_ISO_DAY = r"^\s*[0-9]{4}(-[0-9]{2}-[0-9]{2}|[0-9]{4})([Tt ]|\s*$)"
_USUAL_DAY = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"  # which exists in every year
_USUAL_MOMENT = rf"^{_USUAL_DAY}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$"
_UTC = r"([0-9])\s*(UTC|GMT)\s*$"
_SHORT_HOUR = r"^(\s*[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ])([0-9]:)"
_SINCE_EPOCH = r"^(?P<sign>-?)0*(?P<whole>[0-9]{1,18}?)(?:\.(?P<fraction>[0-9]*))?$"
_UTC_ALONE = r"(?:^|[^A-Za-z/_])(?:UTC|GMT)(?:$|[^A-Za-z/_+0-9-])"
_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*")
_IN_UTC = pd.DatetimeTZDtype("us", "UTC")
_SAFE_DIGITS = 18  # every integer with this many digits fits into 64 bits
_FIRST_MOMENT, _LAST_MOMENT = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")
_FIRST_MICROSECOND, _LAST_MICROSECOND = _FIRST_MOMENT.astype(int), _LAST_MOMENT.astype(int)
_LAST_YEAR = 9999
_CALENDAR_CYCLE = pd.Timedelta(days=146_097).as_unit("us")
_TIME_OF_DAY = pa.time64("us")
_PLAIN_MARKS = SourceFormat(type="jsonl")


def read_timestamp(raw: pd.Series, column: Column, source_format: SourceFormat, unreadable: Unreadable) -> pa.Array:
    """Convert a column to timestamps in UTC. A value without a time zone is in the column's time zone."""
    if _is_iso(raw, column.format) and column.timezone is None:
        return _read_iso(raw, unreadable)
    return arrow_array(_read_timestamp(raw, column, source_format, unreadable)).cast(pa.timestamp("us"))


def _read_timestamp(raw: pd.Series, column: Column, source_format: SourceFormat, unreadable: Unreadable) -> pd.Series:
    moments = _moments(raw, column.format, source_format, unreadable)
    if column.timezone is None or getattr(raw.dtype, "tz", None) is not None:
        return moments
    # A local time that is skipped or repeated when the clocks change does not name a single point in time.
    shift = _away_from_the_ends(moments)
    located = (moments + shift).dt.tz_localize(column.timezone, ambiguous="NaT", nonexistent="NaT")
    in_utc = _within_calendar(located.dt.tz_convert("UTC").dt.tz_localize(None) - shift)
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        return in_utc
    if column.format is not None:
        return moments if names_a_zone(column.format) else in_utc
    zoned = pc.match_substring_regex(_iso_text(text_array(raw)), _ZONE)
    has_zone = zoned.fill_null(False).to_numpy(zero_copy_only=False)
    read: pd.Series = in_utc.where(~has_zone, moments)
    return read


def read_date(raw: pd.Series, column: Column, source_format: SourceFormat, unreadable: Unreadable) -> pa.Array:
    """Convert a column to dates. A date is the day that is written in the file, whatever its time zone. A value with a
    time other than midnight becomes null."""
    if getattr(raw.dtype, "tz", None) is not None:
        raw = raw.dt.tz_localize(None)
    moments = _moments(raw, column.format, source_format, unreadable)
    if isinstance(raw.dtype, pd.StringDtype) or pd.api.types.is_object_dtype(raw.dtype):
        moments = _as_written(raw, column.format, moments)
    return arrow_array(moments.where(moments == moments.dt.normalize())).cast(pa.timestamp("us"))


def read_time(raw: pd.Series, column: Column, *_: object) -> pa.Array:
    """Convert a column to times of day."""
    if column.format is not None:
        timed = _given_as(raw, dt.time)  # cells that are already times; the others are strings in the contract's format
        moments = _read_by_format(as_text(raw.mask(timed)), column.format)
        read: pd.Series = moments.dt.strftime("%H:%M:%S.%f").astype("str")
        return times_of_day(text_array(read.mask(timed, as_text(raw)) if timed.any() else read))
    text = pc.utf8_trim_whitespace(text_array(raw))
    times = pc.if_else(pc.match_substring_regex(text, _TIME), text, None)
    times = pc.replace_substring_regex(times, r"^([0-9]):", r"0\1:")
    short = pc.equal(pc.utf8_length(times), len("08:00"))
    times = pc.if_else(short, _joined(times, ":00"), times)
    return times_of_day(times)


def time_text(times: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Convert times of day to the strings that GX and the preprocessing steps get, such as 08:00:00 or
    08:00:00.500000."""
    return pc.replace_substring_regex(times.cast(TEXT), r"\.0+$", "")


def times_of_day(text: pa.Array) -> pa.Array:
    """Convert strings such as 08:00:00 or 08:00:00.5 to times of day."""
    moments = _joined("1970-01-01 ", text)
    return moments.cast(pa.timestamp("us")).cast(_TIME_OF_DAY)


def _joined(*texts: str | pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*(pa.scalar(one, TEXT) if isinstance(one, str) else one for one in (*texts, "")))


# --- moments ----------------------------------------------------------------------------------------------------------


def _moments(
    raw: pd.Series,
    written: str | None,
    source_format: SourceFormat = _PLAIN_MARKS,
    unreadable: Unreadable | None = None,
) -> pd.Series:
    """Convert a column to timestamps in UTC, with a dtype that has no time zone. Values that cannot be converted become
    NaT."""
    if _is_iso(raw, written):
        moments = pandas_column(_read_iso(raw, unreadable or Unreadable()), "datetime64[us]")
    elif pd.api.types.is_datetime64_any_dtype(raw.dtype):
        moments = raw
    elif written is not None and (dated := _given_as(raw, dt.date)).any():
        # Some cells are already dates; the others are strings in the contract's format.
        others = _moments(as_text(raw.mask(dated)), written, source_format)
        return _moments(raw.where(dated), None).where(dated, others)
    elif written in EPOCHS:
        moments = _since_epoch(raw, EPOCHS[written], source_format)
    else:
        assert written is not None  # noqa: S101 for the type checker
        moments = _read_by_format(as_text(raw), written)
    if moments.dt.tz is not None:
        moments = moments.dt.tz_convert("UTC").dt.tz_localize(None)
    return _within_calendar(moments).astype("datetime64[us]")


def _is_iso(raw: pd.Series, written: str | None) -> bool:
    return written is None and not pd.api.types.is_datetime64_any_dtype(raw.dtype)


def _read_iso(raw: pd.Series, unreadable: Unreadable) -> pa.Array:
    moments = read_texts(text_array(raw), _plain_moments, _iso_moments, unreadable)
    ends = pc.min_max(moments.view(pa.int64())).as_py()
    if ends["min"] is None or (ends["min"] >= _FIRST_MICROSECOND and ends["max"] <= _LAST_MICROSECOND):
        return moments
    return arrow_array(_within_calendar(pandas_column(moments, "datetime64[us]")))


def _iso_text(text: pa.Array) -> pa.Array:
    """Convert strings such as `2024-07-01 7:05` or `2024-07-01 07:05 UTC` to ISO 8601. Other strings stay unchanged."""
    text = pc.replace_substring_regex(text, _UTC, r"\1Z")
    return pc.replace_substring_regex(text, _SHORT_HOUR, r"\10\2")


def _plain_moments(text: pa.Array) -> pa.Array | None:
    """Convert strings to timestamps in one operation if all are in ISO 8601 without a time zone. Otherwise return None.
    This is ten times faster than `_iso_moments`."""
    try:
        return text.cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        return None


def _iso_moments(text: pa.Array) -> pa.Array:
    """Convert strings one by one, except those that are certainly valid."""
    usual = pc.match_substring_regex(text, _USUAL_MOMENT)
    moments = pc.if_else(usual, text, None).cast(pa.timestamp("us"))
    others = pc.invert(usual)
    return pc.replace_with_mask(moments, others, _unusual_moments(text.filter(others)))


def _unusual_moments(text: pa.Array) -> pa.Array:
    # A single value with nanoseconds would narrow the range of years for all other values.
    short = pc.replace_substring_regex(_iso_text(text), r"(\.[0-9]{6})[0-9]+", r"\1")
    # pandas would also accept a year alone, and "-3" as a year.
    days = pandas_column(pc.if_else(pc.match_substring_regex(short, _ISO_DAY), short, None), "str")
    moments = pd.to_datetime(days, format="ISO8601", errors="coerce", utc=True)
    return arrow_array(moments.astype(_IN_UTC)).cast(pa.timestamp("us"))


def _since_epoch(raw: pd.Series, decimals: int, source_format: SourceFormat) -> pd.Series:
    """Convert numbers that count from the beginning of 1970 to timestamps in UTC. Digits beyond microseconds are cut
    off.

    Args:
        decimals: how many decimal places the numbers need to express microseconds, for example 6 for seconds.
    """
    parts = pc.extract_regex(plain_numbers(raw, source_format), _SINCE_EPOCH)
    sign, whole, fraction = (pc.struct_field(parts, name) for name in ("sign", "whole", "fraction"))
    finer = pc.utf8_slice_codeunits(pc.utf8_rpad(fraction, decimals, "0"), 0, decimals)
    digits = _joined(whole, finer)
    micros = pc.if_else(pc.less_equal(pc.utf8_length(digits), _SAFE_DIGITS), digits, None).cast(pa.int64())
    micros = pc.if_else(pc.equal(sign, "-"), pc.negate(micros), micros)
    return pandas_column(micros.cast(pa.timestamp("us")), "datetime64[us]")


def _read_by_format(text: pd.Series, written: str) -> pd.Series:
    """Convert strings in the strftime format `written` to timestamps in UTC.

    pandas reads second 60 as the next minute, and a day 366 or week 53 that does not exist as a day in the next year. A
    value becomes NaT if formatting the result does not give the same value again.
    """
    named = np.zeros(len(text), dtype=bool)
    if "%Z" in written:  # the only zone names that are passed to pandas are UTC and GMT
        named = (text.notna() & ~text.str.contains(_UTC_ALONE, na=False)).to_numpy()
    moments = pd.to_datetime(text.mask(named, "x"), format=written, errors="coerce", utc=True)
    doubtful = moments.notna()
    if not re.search("%[jUW]", written):
        doubtful &= (moments.dt.second < 2) & text.str.contains("6[01]", na=False)
    rolled_over = np.zeros(len(text), dtype=bool)
    for place in np.flatnonzero(doubtful):
        again = pd.to_datetime(text.iloc[place], format=written).strftime(written)
        rolled_over[place] = _digits(again) != _digits(text.iloc[place])
    moments = moments.mask(rolled_over)
    if not named.any():
        return moments
    by_name = {value: _moment_by_zone_name(value, written) for value in text[named].unique()}
    others = pd.to_datetime(text.map(by_name), utc=True).astype(_IN_UTC)
    return moments.astype(_IN_UTC).where(~named, others)


def _moment_by_zone_name(text: str, written: str) -> Any:
    """Convert a string with the name of a time zone to a timestamp in UTC. It becomes NaT if the name is unknown or
    does not apply on that day. For example, CET in July is ambiguous, because some people mean CEST by it."""
    try:
        wall = pd.to_datetime(text, format=written).tz_localize(None).to_pydatetime(warn=False)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError):
        return pd.NaT
    names = _zone_names() & set(_ZONE_NAME.findall(text))
    if len(names) != 1:
        return pd.NaT
    (name,) = names
    first, second = (wall.replace(tzinfo=zoneinfo.ZoneInfo(name), fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset() or ("/" not in name and first.tzname() != name):
        return pd.NaT
    try:
        return pd.Timestamp(first.astimezone(dt.UTC))
    except OverflowError:
        return pd.NaT


@functools.cache
def _zone_names() -> set[str]:
    return zoneinfo.available_timezones()


def _as_written(raw: pd.Series, written: str | None, moments: pd.Series) -> pd.Series:
    """Replace timestamps in UTC with the local times that are written in the column `raw`."""
    if written is None:
        text = _iso_text(text_array(raw))
        if (pc.max(pc.utf8_length(text)).as_py() or 0) <= len("2024-01-01"):
            return moments
        zoned = pc.match_substring_regex(text, _ZONE).fill_null(False).to_numpy(zero_copy_only=False)
        clock = pandas_column(pc.replace_substring_regex(text, _ZONE, r"\1"), "str")
        return moments.where(~zoned, _moments(clock, None).where(moments.notna())) if zoned.any() else moments
    if not names_a_zone(written):
        return moments
    texts = as_text(raw).where(moments.notna() & ~_given_as(raw, dt.date))
    clocks = {text: pd.to_datetime(text, format=written).tz_localize(None) for text in texts.dropna().unique()}
    return moments.where(texts.isna(), pd.to_datetime(texts.map(clocks)).astype(moments.dtype))


def _digits(text: str) -> str:
    """Return the digits of a timestamp, for a comparison. Zeros are left out, because they may be optional, and so are
    digits beyond microseconds."""
    return re.sub(r"[^1-9]", "", re.sub(r"(\.\d{6})\d+", r"\1", text))


def _given_as(raw: pd.Series, kind: type[dt.date] | type[dt.time]) -> pd.Series:
    """Return a mask of the values that already have the type `kind` instead of being strings, as is possible in typed
    formats."""
    if not pd.api.types.is_object_dtype(raw.dtype):
        return pd.Series(np.zeros(len(raw), dtype=bool), index=raw.index)
    found: pd.Series = raw.map(lambda value: value is not pd.NaT and isinstance(value, kind)).astype(bool)
    return found


def _away_from_the_ends(moments: pd.Series) -> pd.Series:
    """Return by how much to shift each timestamp before it is localized. Python cannot localize timestamps in the years
    1 and 9999, because in UTC they may be in the year 0 or 10000. So they are shifted by 400 years, after which the
    calendar repeats; the shift of all others is 0."""
    years = moments.dt.year
    cycles = (years == 1).astype("int64") - (years == _LAST_YEAR).astype("int64")
    shift: pd.Series = cycles * _CALENDAR_CYCLE
    return shift


def _within_calendar(moments: pd.Series) -> pd.Series:
    """Replace timestamps outside the years 1 to 9999 with NaT, because Python and most databases cannot store them."""
    if moments.min() >= _FIRST_MOMENT and moments.max() <= _LAST_MOMENT:
        return moments
    within: pd.Series = moments.where((moments >= _FIRST_MOMENT) & (moments <= _LAST_MOMENT))
    return within
