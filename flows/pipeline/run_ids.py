"""Finds a run by its ID, or by the beginning of the ID: `sluice status` and Prefect show the first 8 characters."""

import re

from blocks.object_store import ObjectStore
from flows.pipeline.attempts import PREFIX as ATTEMPTS
from flows.pipeline.receipt import RECEIPTS
from flows.refinery.errors import TerminalError

_LENGTH = 32
_RUN_ID = re.compile(r"[0-9a-f]{8,32}")
_NAMED = 3


class RunUnknown(TerminalError):
    """The given string does not identify one run: it cannot be a run ID or the beginning of one, or no run or several
    runs match it."""


def require_run_id(given: str) -> str:
    """Return `given` if it has the form of a run ID or the beginning of one; otherwise raise RunUnknown."""
    if not _RUN_ID.fullmatch(given):
        raise RunUnknown(f"{given!r} is not a run ID: it must have 8 to {_LENGTH} characters, only 0-9 and a-f")
    return given


def find_run(store: ObjectStore, given: str) -> str:
    """Return the ID of the run whose ID begins with `given`, among runs with a receipt or a failed attempt. A complete
    ID is returned without a search. Raise RunUnknown if there is no such run, if there are several, or if `given` does
    not have the form of a run ID."""
    if len(require_run_id(given)) == _LENGTH:
        return given
    listed = (key for prefix in (RECEIPTS, ATTEMPTS) for key, _ in store.list_keys(prefix + given))
    found = sorted({key.rpartition("/")[2].removesuffix(".json") for key in listed})
    if len(found) == 1:
        return found[0]
    several = f"several run IDs begin with {given}: {', '.join(found[:_NAMED])}"
    raise RunUnknown(several if found else f"no run ID begins with {given}; `sluice status` lists the runs")
