"""Creates, updates and removes a stack's automations in Prefect, which automations.yaml declares."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from blocks.prefect_names import PrefectNames
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError

FILE = Path(__file__).with_suffix(".yaml")
_SECONDS_PER_HOUR = 3_600
QUARANTINED_PERCENT = "SLUICE_NOTIFY_QUARANTINED_PERCENT"
"""The environment variable with the percentage of quarantined rows at or above which a file causes a notification; 0
disables these notifications."""
_PAGE = 200
_ALL_PERCENT = 100


class AutomationsInvalid(TerminalError):
    """automations.yaml is not a list of automations, Prefect rejects one of them, or the percentage in
    SLUICE_NOTIFY_QUARANTINED_PERCENT is invalid.

    Attributes:
        name: the automation's name; "" if the error is not in one automation.
        fields: the path to the invalid field; empty if there is none.
    """

    def __init__(self, message: str, *, name: str = "", fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.name, self.fields = name, fields


def deadlines_of(contracts: Iterable[Contract]) -> dict[str, float]:
    """Return the expected interval between files, in hours, by dataset, for those contracts that set one."""
    return {
        contract.dataset: contract.expected_every_hours
        for contract in contracts
        if contract.expected_every_hours is not None
    }


def declared(
    names: PrefectNames,
    deadlines_hours: Mapping[str, float] | None = None,
    path: Path = FILE,
    *,
    quarantined_percent: str = "10",
) -> list[dict[str, Any]]:
    """Return the automations of a stack, as automations.yaml declares them.

    Args:
        deadlines_hours: the expected interval between files, in hours, by dataset.
        quarantined_percent: the value of QUARANTINED_PERCENT, a whole number from 0 to 100.

    Raises:
        AutomationsInvalid: the file is not a list of automations with names, or the percentage is invalid.
    """
    if not quarantined_percent.isdecimal() or int(quarantined_percent) > _ALL_PERCENT:
        raise AutomationsInvalid(f"{QUARANTINED_PERCENT}={quarantined_percent!r} must be a whole number from 0 to 100")
    least = int(quarantined_percent) or _ALL_PERCENT + 1  # no file can have 101%
    percents = [str(percent) for percent in range(least, max(least, _ALL_PERCENT) + 1)]
    text = path.read_text(encoding="utf-8").replace("$STACK", names.stack).replace("$PREFIX", names.prefix)
    text = text.replace("$QUARANTINED_PERCENTS", json.dumps(percents))
    entries = yaml.safe_load(text)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
        raise AutomationsInvalid(f"{path} must be a list of automations, each with a name")
    return [each for entry in entries for each in _for_each_deadline(entry, deadlines_hours or {})]


def of_deadlines(names: PrefectNames, deadlines_hours: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return only those automations that monitor deadlines; `deadlines_hours` is the same as for `declared`."""
    others = {entry["name"] for entry in declared(names)}
    return [entry for entry in declared(names, deadlines_hours) if entry["name"] not in others]


def without_deadline(names: PrefectNames, contracts: Iterable[Contract]) -> list[str]:
    """Return the names that deadline automations would have for the contracts that set no deadline."""
    none = {contract.dataset: 1.0 for contract in contracts if contract.expected_every_hours is None}
    return [entry["name"] for entry in of_deadlines(names, none)]


def _for_each_deadline(entry: dict[str, Any], deadlines_hours: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Yield an entry of automations.yaml or, if it is marked with `for_each_deadline`, a copy of it for each dataset
    with a deadline."""
    if not entry.pop("for_each_deadline", False):
        yield entry
        return
    for dataset, hours in deadlines_hours.items():
        one: dict[str, Any] = json.loads(json.dumps(entry).replace("$DATASET", dataset))
        one["trigger"]["within"] = hours * _SECONDS_PER_HOUR
        yield one


def apply(names: PrefectNames, entries: Iterable[Mapping[str, Any]], *, dropped: Collection[str] = ()) -> Iterator[str]:
    """Create or update automations in Prefect, and yield a message for each. Raise AutomationsInvalid if Prefect
    rejects one of them.

    Args:
        entries: the automations, as `declared` returns them.
        dropped: the names of automations to delete if they exist.
    """
    with get_client(sync_client=True) as client:
        known, inventory = present(client, names), PrefectInventory.of(client, names)
        for name in sorted(known.keys() & set(dropped)):
            client.delete_automation(known[name])
            yield f"removed: automation {name}"
        for entry in entries:
            core, missing = resolved(inventory, entry)
            yield from (f"omitted from {entry['name']}: {name}, which does not exist" for name in missing)
            if core is None:
                yield f"omitted: automation {entry['name']}"
            elif core.name in known:
                client.update_automation(known[core.name], core)
                yield f"automation {core.name}: updated"
            else:
                client.create_automation(core)
                yield f"automation {core.name}: created"


@dataclass(frozen=True)
class PrefectInventory:
    """The Prefect IDs of the blocks and deployments that the automations' actions refer to by name."""

    blocks: Mapping[str, str] = field(default_factory=dict)  # by name
    deployments: Mapping[str, str] = field(default_factory=dict)  # by FLOW/DEPLOYMENT

    @classmethod
    def of(cls, client: SyncPrefectClient, names: PrefectNames) -> PrefectInventory:
        """Read the IDs of the stack's notification block and of its explain-crash deployment from the server."""
        explain = names.deployment("explain-crash")
        try:
            deployments = {explain: str(client.read_deployment_by_name(explain).id)}
        except ObjectNotFound:
            deployments = {}
        return cls({block["name"]: block["id"] for block in blocks_named(client, names.notify_block)}, deployments)

    def action(self, declared: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return an action with an ID instead of a name; None if no block or deployment has that name."""
        rest = {key: value for key, value in declared.items() if key not in ("notify", "run")}
        if "notify" in declared:
            block = self.blocks.get(declared["notify"])
            return {"type": "send-notification", "block_document_id": block, **rest} if block else None
        if "run" in declared:
            deployment = self.deployments.get(declared["run"])
            return {"type": "run-deployment", "deployment_id": deployment, **rest} if deployment else None
        return rest


def resolved(inventory: PrefectInventory, entry: Mapping[str, Any]) -> tuple[AutomationCore | None, list[str]]:
    """Return an automation with IDs instead of names, and the names that do not exist. Actions with such names are
    omitted; if no action remains, the automation is None. Raise AutomationsInvalid if Prefect rejects the
    automation."""
    actions = [(action, inventory.action(action)) for action in entry.get("actions", [])]
    missing = [str(action.get("notify") or action.get("run")) for action, found in actions if found is None]
    kept = [found for _, found in actions if found is not None]
    if not kept:
        return None, missing
    try:
        return AutomationCore.model_validate({**entry, "actions": kept}), missing
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        fields = tuple(map(str, fault["loc"]))
        raise AutomationsInvalid(
            f"automation {entry['name']!r}: {'.'.join(fields)}: {fault['msg']}", name=entry["name"], fields=fields
        ) from None


def present(client: SyncPrefectClient, names: PrefectNames) -> dict[str, UUID]:
    found: list[dict[str, Any]] = []
    while page := client.request("POST", "/automations/filter", json={"limit": _PAGE, "offset": len(found)}).json():
        found += page
    return {one["name"]: UUID(one["id"]) for one in found if names.has_automation(one["name"])}


def blocks_named(client: SyncPrefectClient, *block_names: str) -> list[dict[str, Any]]:
    """Return the server's blocks with these names, of any type."""
    only = {"block_documents": {"name": {"any_": block_names}}}
    found: list[dict[str, Any]] = client.request("POST", "/block_documents/filter", json=only).json()
    return found
