"""Infer what a column's numbers mean from its name and values: for example, months if `month` has values up to 12."""

import re
from dataclasses import dataclass

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|%")
_PER = "per"  # orders_per_day are not days
_LATEST_CLOCK = 2400


@dataclass(frozen=True)
class Meaning:
    """The meaning of a column's numbers, and the range of values that it implies."""

    what: str
    low: float
    high: float

    def holds(self, low: float, high: float) -> bool:
        """Return whether numbers from `low` to `high` are in the range."""
        return self.low <= low <= high <= self.high


_BY_LAST_WORD = {
    word: meaning
    for meaning, words in {
        Meaning("months", 1, 12): ("month",),
        Meaning("days of a month", 1, 31): ("day", "dom", "mday"),
        Meaning("weeks of a year", 1, 53): ("week",),
        Meaning("quarters of a year", 1, 4): ("quarter",),
        Meaning("hours of a day", 0, 23): ("hour", "hr"),
        Meaning("minutes of an hour", 0, 59): ("minute",),
        Meaning("seconds of a minute", 0, 59): ("second",),
        Meaning("directions in degrees", 0, 360): ("dir", "direction", "bearing", "heading", "azimuth"),
        Meaning("latitudes", -90, 90): ("lat", "latitude"),
        Meaning("longitudes", -180, 180): ("lon", "lng", "long", "longitude"),
    }.items()
    for word in words
}
_PERCENTAGES = Meaning("percentages", 0, 100)
_PERCENT_WORDS = frozenset({"percent", "percentage", "pct", "perc", "%", "humidity", "humid"})
_CLOCK_WORDS = frozenset({"time", "clock", "hhmm"})


def meaning_of(name: str, low: float, high: float, *, may_be_clock: bool) -> Meaning | None:
    """Return the meaning of a column's numbers, or None if its name shows none or a value is out of the range. `low`
    and `high` are the column's extremes; `may_be_clock` is true if the last two digits are always below 60."""
    words = words_of(name)
    if not words:
        return None
    meaning = None if _PER in words[:-1] else _BY_LAST_WORD.get(words[-1])
    if _PERCENT_WORDS & set(words) and high > 1:  # up to 1 they are fractions
        meaning = _PERCENTAGES
    if words[-1] in _CLOCK_WORDS and may_be_clock and high >= _LATEST_CLOCK / 2:
        meaning = Meaning("clock times, such as 1430 for 14:30", 0, _LATEST_CLOCK if high == _LATEST_CLOCK else 2359)
    return meaning if meaning and meaning.holds(low, high) else None


def words_of(name: str) -> list[str]:
    """Split a column's name into lower-case words: dep_time, depTime and DEP TIME become dep and time."""
    return [word.lower() for word in _WORD.findall(name)]
