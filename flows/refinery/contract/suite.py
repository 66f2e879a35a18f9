"""Read a GX suite from JSON, into the form of a contract's `expectations`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.refinery.errors import TerminalError

# GX writes this default with every expectation of a suite. In Sluice it rejects a file for one bad row, so it is
# dropped here. To keep it, put `critical: true` into the expectation's meta, or move it into the contract.
_SEVERITY_OF_GX = "critical"


class SuiteUnreadable(TerminalError):
    """The file is missing or is not a GX suite; the message names the reason."""


def read_suite(path: Path) -> list[dict[str, Any]]:
    """Return a suite's expectations, each as `name: {arguments}`. Raise SuiteUnreadable if the file is not a suite."""
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
