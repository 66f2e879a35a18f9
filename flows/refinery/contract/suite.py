"""Read a Great Expectations suite from a JSON file, and convert it to the form of a contract's `expectations`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.refinery.errors import TerminalError

# GX writes this default into every expectation of a suite. In Sluice it would reject a file for one bad row, so it is
# removed here. To keep it, set `critical: true` in the expectation's meta, or move the expectation into the contract.
_SEVERITY_OF_GX = "critical"


class SuiteUnreadable(TerminalError):
    """The file that a contract names as its GX suite is missing or is not a suite; the message gives the reason."""


def read_suite(path: Path) -> list[dict[str, Any]]:
    """Return a suite's expectations, each as a mapping from its name to its arguments. Raise SuiteUnreadable if the
    file is missing or is not a suite."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["expectations"]
        return [_entry(entry) for entry in entries]
    except FileNotFoundError:
        raise SuiteUnreadable(f"there is no file {path.name!r} next to the contract") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SuiteUnreadable(
            f"{path.name!r} is not a GX suite (a JSON object with a list `expectations`): {error!r}"
        ) from None


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    name = entry.get("type") or entry["expectation_type"]
    arguments = {key: value for key, value in (entry.get("kwargs") or {}).items() if key != "batch_id"}
    own = {key: entry[key] for key in ("severity", "description") if isinstance(entry.get(key), str)}
    is_rejecting = (entry.get("meta") or {}).get(_SEVERITY_OF_GX) is True
    if own.get("severity") == _SEVERITY_OF_GX and not is_rejecting:
        del own["severity"]
    return {str(name): {**arguments, **own}}
