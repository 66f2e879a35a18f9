"""Applies automations.yaml and concurrency.yaml to the Prefect server: the same result however often it runs.

    python -m deployment.prefect_setup.automations

Talks to the Prefect API that PREFECT_API_URL names.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import AutomationCore
from pydantic import ValidationError

from blocks.settings import CONTRACTS
from deployment.prefect_setup import concurrency
from flows.refinery.contract.loading import ContractInvalid, Contracts
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError

FILE = Path(__file__).with_suffix(".yaml")
_SECONDS_PER_HOUR = 3_600


class AutomationsInvalid(TerminalError):
    """The file with the automations holds one that Prefect does not know; the message names it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Apply the file; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployment.prefect_setup.automations", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=FILE, help="the automations (default: Sluice's own)")
    parser.add_argument("--concurrency", type=Path, default=concurrency.FILE, help="the limits (default: Sluice's own)")
    given = parser.parse_args(arguments)
    try:
        contracts = Contracts.load(CONTRACTS)
        limits = concurrency.declared(given.concurrency)
        done = apply(declared(given.file), deadlines_of(contracts))
        done += concurrency.apply(limits, [contract.dataset for contract in contracts])
        print("\n".join(done))  # noqa: T201 (a command's output)
    except (AutomationsInvalid, concurrency.ConcurrencyInvalid, ContractInvalid) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


def deadlines_of(contracts: Iterable[Contract]) -> dict[str, float]:
    """Return by dataset how often a file is to come, in hours, for the contracts that say so."""
    return {
        contract.dataset: contract.expected_every_hours
        for contract in contracts
        if contract.expected_every_hours is not None
    }


def declared(path: Path = FILE) -> list[dict[str, Any]]:
    """Read the automations as they are written."""
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(written, list) or not all(isinstance(entry, dict) and "name" in entry for entry in written):
        raise AutomationsInvalid(f"{path}: expected a list of automations, each with a name")
    return written


def apply(automations: Iterable[Mapping[str, Any]], deadlines_hours: Mapping[str, float] | None = None) -> list[str]:
    """Create or update every automation by its name; return what was done, a line for each.

    Args:
        automations: as declared.
        deadlines_hours: by dataset, how often a file is to come.

    Raises:
        AutomationsInvalid: one of them is none.
    """
    with get_client(sync_client=True) as client:
        present = _present(client)
        there = There.on(client)
        done = []
        for entry in _spread(automations, deadlines_hours or {}):
            core, missing = resolved(there, entry)
            done += [f"left out of {entry['name']}: {name} (not there)" for name in missing]
            done.append(_apply_one(client, core, present) if core else f"left out: {entry['name']}")
        return done


def _spread(automations: Iterable[Mapping[str, Any]], deadlines_hours: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """One automation for each entry, or for each dataset with a deadline."""
    for written in automations:
        entry = copy.deepcopy(dict(written))
        if not entry.pop("for_each_deadline", False):
            yield entry
            continue
        for dataset, hours in deadlines_hours.items():
            one = copy.deepcopy(entry)
            one["name"] = f"{entry['name']} {dataset}"
            one["trigger"]["within"] = hours * _SECONDS_PER_HOUR
            one["trigger"]["match_related"] = [
                entry["trigger"]["match_related"],
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{dataset}"},
            ]
            yield one


@dataclass(frozen=True)
class There:
    """What a server has of the things that actions name, with their ids.

    Attributes:
        blocks: by their names.
        deployments: by FLOW/DEPLOYMENT.
    """

    blocks: Mapping[str, str] = field(default_factory=dict)
    deployments: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def on(cls, client: SyncPrefectClient) -> There:
        """Ask the server."""
        blocks = client.request("POST", "/block_documents/filter", json={"limit": 200}).json()
        flows = client.request("POST", "/flows/filter", json={"limit": 200}).json()
        deployments = client.request("POST", "/deployments/filter", json={"limit": 200}).json()
        flow_names = {flow["id"]: flow["name"] for flow in flows}
        return cls(
            blocks={block["name"]: block["id"] for block in blocks if block["name"]},
            deployments={f"{flow_names.get(one['flow_id'])}/{one['name']}": one["id"] for one in deployments},
        )

    def action(self, written: Mapping[str, Any]) -> dict[str, Any] | None:
        """Put the id where the file has a name; None when there is no such thing."""
        rest = {key: value for key, value in written.items() if key not in ("notify", "run")}
        if "notify" in written:
            block = self.blocks.get(written["notify"])
            return {"type": "send-notification", "block_document_id": block, **rest} if block else None
        if "run" in written:
            deployment = self.deployments.get(written["run"])
            return {"type": "run-deployment", "deployment_id": deployment, **rest} if deployment else None
        return rest


def resolved(there: There, entry: dict[str, Any]) -> tuple[AutomationCore | None, list[str]]:
    """Put ids where names stand, and return what names nothing; no automation when no action is left.

    Raises:
        AutomationsInvalid: Prefect knows no such automation.
    """
    written = entry.get("actions", [])
    actions = [there.action(action) for action in written]
    missing = [
        str(one.get("notify") or one.get("run")) for one, found in zip(written, actions, strict=True) if found is None
    ]
    kept = [action for action in actions if action is not None]
    if not kept:
        return None, missing
    try:
        return AutomationCore.model_validate({**entry, "actions": kept}), missing
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise AutomationsInvalid(f"automation {entry['name']!r}: {where}: {fault['msg']}") from None


def _present(client: SyncPrefectClient) -> dict[str, UUID]:
    """The automations on the server, by name."""
    found: dict[str, UUID] = {}
    while True:
        page = client.request("POST", "/automations/filter", json={"limit": 200, "offset": len(found)}).json()
        if not page:
            return found
        before = len(found)
        found.update({automation["name"]: UUID(automation["id"]) for automation in page})
        if len(found) == before:
            return found


def _apply_one(client: SyncPrefectClient, core: AutomationCore, present: dict[str, UUID]) -> str:
    body = core.model_dump(mode="json", exclude_unset=True)
    known = present.get(core.name)
    if known:
        client.request("PUT", "/automations/{id}", path_params={"id": known}, json=body)
        return f"updated: {core.name}"
    client.request("POST", "/automations/", json=body)
    return f"created: {core.name}"


if __name__ == "__main__":
    sys.exit(main())
