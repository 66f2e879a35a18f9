"""Formats, time zones and texts of dates, as far as they are known without pandas, which reads the formats."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from typing import Annotated

from pydantic import AfterValidator

from flows.refinery.suggestions import did_you_mean

_CODE = re.compile(r"%(.?)", re.DOTALL)


def is_moment(text: str) -> bool:
    """Whether a text is a date, or a date with a time of day, in ISO 8601; not a week, which pandas cannot read."""
    try:
        dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return "W" not in text


def names_a_zone(time_format: str) -> bool:
    """Whether a format has a code for a time zone."""
    return bool({"z", "Z"} & set(_CODE.findall(time_format)))


def _with_a_code(time_format: str) -> str:
    if not set(_CODE.findall(time_format)) - {"%"}:
        raise ValueError(f"format {time_format!r} has no strftime code; for instance '%d.%m.%Y'")
    return time_format


def _known_zone(zone: str) -> str:
    known = zoneinfo.available_timezones()
    if zone not in known:
        raise ValueError(f"there is no time zone {zone!r}{did_you_mean(zone, known)}")
    return zone


TimeFormat = Annotated[str, AfterValidator(_with_a_code)]
"""The format of a date or time, in strftime's codes. Whether pandas can read it is checked with the steps."""

TimeZone = Annotated[str, AfterValidator(_known_zone)]
"""The name of an existing time zone."""
