"""Finds a run by its id or by the first 8 or more characters of it, which `sluice status` and Prefect show."""

import re

from blocks.object_store import ObjectStore
from flows.pipeline.attempts import PREFIX as ATTEMPTS
from flows.pipeline.receipt import RECEIPTS
from flows.refinery.errors import TerminalError

_LENGTH = 32
_RUN_ID = re.compile(r"[0-9a-f]{8,32}")
_NAMED = 3


class RunUnknown(TerminalError):
    """The text is not a run id; or no run's id begins with it; or several do."""


def require_run_id(given: str) -> str:
    """Return `given` if it can be a run id or the beginning of one; otherwise raise RunUnknown."""
    if not _RUN_ID.fullmatch(given):
        raise RunUnknown(f"{given!r} is not a run id: 8 to {_LENGTH} characters of 0-9 and a-f")
    return given


def find_run(store: ObjectStore, given: str) -> str:
    """Return the id of the run with a receipt or a failed attempt whose id begins with `given`. A complete id is
    returned without a search. Raise RunUnknown if there is no such run or several, or if `given` cannot be a run id."""
    if len(require_run_id(given)) == _LENGTH:
        return given
    found = sorted({_run_of(key) for prefix in (RECEIPTS, ATTEMPTS) for key in _keys(store, prefix + given)})
    if len(found) == 1:
        return found[0]
    several = f"several runs begin with {given}: {', '.join(found[:_NAMED])}"
    raise RunUnknown(several if found else f"no run begins with {given}; `sluice status` lists the runs")


def _run_of(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _keys(store: ObjectStore, prefix: str) -> list[str]:
    return [key for page in store.list_keys(prefix) for key, _ in page]
