"""Check date formats, time zones and dates without pandas."""

import datetime as dt
import re
import zoneinfo
from typing import Annotated

from pydantic import AfterValidator

from flows.refinery.suggestions import did_you_mean

EPOCHS = {"epoch_seconds": 6, "epoch_milliseconds": 3, "epoch_microseconds": 0}
"""The formats that count from 1970, each with the number of decimal places that a microsecond has in its unit."""

_CODE = re.compile(r"%(.?)", re.DOTALL)


def is_moment(text: str) -> bool:
    """Return whether a string is an ISO 8601 date, with or without a time. Week dates do not count, because pandas
    cannot parse them."""
    try:
        dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return "W" not in text


def names_a_zone(time_format: str) -> bool:
    """Return whether a format has a strftime code for a time zone."""
    return bool({"z", "Z"} & set(_CODE.findall(time_format)))


def _with_a_code(time_format: str) -> str:
    if time_format not in EPOCHS and not set(_CODE.findall(time_format)) - {"%"}:
        raise ValueError(
            f"format {time_format!r} has no strftime code, such as %d or %Y, and is not one of {', '.join(EPOCHS)}"
        )
    return time_format


def _known_zone(zone: str) -> str:
    known = zoneinfo.available_timezones()
    if zone not in known:
        raise ValueError(f"there is no time zone {zone!r}{did_you_mean(zone, known)}")
    return zone


TimeFormat = Annotated[str, AfterValidator(_with_a_code)]
"""The format of a date or time: strftime codes, or one of EPOCHS. check_contract.py checks that pandas supports it."""

TimeZone = Annotated[str, AfterValidator(_known_zone)]
"""The name of a time zone in the IANA database, such as Europe/Berlin."""
