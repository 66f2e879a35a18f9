"""Find the thousands separator of the numbers in a sample file, if at least one number proves it."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from flows.refinery.contract.model import SAME_MARKS
from flows.refinery.propose.file_format import FoundFormat, read_sample

_MARKS = {mark: mark + SAME_MARKS.get(mark, "") for mark in ",. '"}
_TRIED_ROWS = 5_000


def with_thousands(path: Path, found: FoundFormat) -> FoundFormat:
    """Return a sample's options. If its numbers prove a thousands separator that the reader does not detect, add that
    separator, and the decimal separator that it implies."""
    partition = next(read_sample(path, found, {}))
    written = partition.source_format
    if written.type != "csv" or written.thousands is not None:
        return found
    names = list(map(str, partition.frame.columns))
    texts = next(read_sample(path, found, dict.fromkeys(names, "string"))).frame.head(_TRIED_ROWS)
    decimal = written.decimal if written.is_decimal_proven else None
    for mark in _MARKS:
        if mark in (decimal, found.options.get("quote")):
            continue
        if any(_shows_thousands(map(str, texts[name].dropna().unique()), mark, decimal) for name in names):
            beside = {"decimal": decimal or ","} if mark == "." or decimal == "," else {}
            return replace(found, options={**found.options, "thousands": mark, **beside})
    return found


def _shows_thousands(texts: Iterable[str], mark: str, decimal: str | None) -> bool:
    """Return whether all strings can be numbers with this thousands separator and at least one of them proves it.
    1,234,567 and 1,234.5 are proof; 1,234 is proof only if the file is known to have a different decimal separator."""
    beside = decimal or {",": ".", ".": ","}.get(mark, ".")
    group = f"[{_MARKS[mark]}]"
    number = re.compile(rf"[+-]?([0-9]+|[0-9]{{1,3}}(?:{group}[0-9]{{3}})+)(\{beside}[0-9]+)?")
    proof = re.compile(rf"[+-]?[0-9]{{1,3}}(?:(?:{group}[0-9]{{3}}){{2,}}|{group}[0-9]{{3}}\{beside}[0-9]+)")
    one_group = re.compile(rf"[+-]?[0-9]{{1,3}}{group}[0-9]{{3}}")
    stripped = [text.strip() for text in texts]
    if not stripped or not all(map(number.fullmatch, stripped)):
        return False
    return any(map(proof.match, stripped)) or (
        decimal is not None and mark in ",." and any(map(one_group.fullmatch, stripped))
    )
