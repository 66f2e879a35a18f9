"""What is wrong with the way in which times are said to be written; pandas would say so when the first file comes."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from flows.refinery.suggestions import did_you_mean

# What pandas reads, by its documentation of to_datetime and by a test that holds the two together.
READABLE_CODES = frozenset("ABHIMNSXYZabcdfjmpuwxyz%GUVW")
_WEEKDAYS = frozenset("Aauw")
_WHOLE = {"c": "%a %b %d %H:%M:%S %Y", "x": "%m/%d/%y", "X": "%H:%M:%S"}  # codes that stand for several others
_CODE = re.compile(r"%(.?)", re.DOTALL)


def format_fault(written: str) -> str | None:
    """Why no text can be read by this format of strftime's codes, as a sentence; None where it is sound."""
    said = f"format {written!r}"
    codes: list[str] = _CODE.findall(_CODE.sub(lambda code: _WHOLE.get(code[1], code[0]), written))
    if not codes:
        return f"{said} holds no strftime code; for instance '%d.%m.%Y'"
    if "" in codes:
        return f"{said} ends in a % without a code; write %% for the sign itself"
    unknown = [code for code in codes if code not in READABLE_CODES]
    if unknown:
        return f"{said} holds %{unknown[0]}, which is no code that can be read; for instance '%d.%m.%Y %H:%M'"
    twice = [code for code in codes if codes.count(code) > 1 and code != "%"]
    if twice:
        return f"{said} holds %{twice[0]} twice; which of the two counts cannot be known"
    if {"z", "Z"} <= set(codes):
        return f"{said} holds %z and %Z; the zone can be read by one of them"
    return _week_fault(said, frozenset(codes))


def names_a_zone(written: str) -> bool:
    """Whether a format holds a code for a time zone."""
    return bool({"z", "Z"} & set(_CODE.findall(written)))


def is_moment(text: str) -> bool:
    """Whether a text is a date, or a date with a time of day, in ISO 8601; not a week, which pandas cannot read."""
    try:
        dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return "W" not in text


def _week_fault(said: str, codes: frozenset[str]) -> str | None:
    if codes & set("GV") and not ({"G", "V"} <= codes and codes & _WEEKDAYS and not codes & set("jY")):
        return f"{said}: %G and %V are an ISO week's year and number; with a weekday they are a day, as '%G-W%V-%u'"
    if codes & set("UW") and not (codes & _WEEKDAYS and codes & set("Yy")):
        return f"{said}: %U and %W are a week's number; with year and weekday they are a day, as '%Y-%W-%a'"
    return None


def timezone_fault(zone: str) -> str | None:
    """Why there are no times of this zone, as a sentence; None where it is one."""
    known = zoneinfo.available_timezones()
    return None if zone in known else f"there is no time zone {zone!r}{did_you_mean(zone, known)}"


def _without(fault_of: Callable[[str], str | None]) -> AfterValidator:
    def check(written: str) -> str:
        fault = fault_of(written)
        if fault:
            raise ValueError(fault)
        return written

    return AfterValidator(check)


TimeFormat = Annotated[str, _without(format_fault)]
"""How a date or time is written, in strftime's codes that can be read."""

TimeZone = Annotated[str, _without(timezone_fault)]
"""The name of a time zone that there is."""
