"""Contracts that are ready for use: read from their files, with everything in them that can be wrong found out first.

Reading alone (contract/loading.py) knows what a contract says; this also knows what steps and output make of it.
Great Expectations is not imported for it, which would take seconds: what it refuses is in a table
(contract/vocabulary.json) and in the rules of contract/expectation_faults.py and contract/consistency.py, which a test
holds against GX itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.refinery.contract import loading
from flows.refinery.contract.consistency import Place, inconsistencies
from flows.refinery.contract.loading import CONTRACT_FILE, ContractInvalid, Contracts
from flows.refinery.contract.model import Contract
from flows.refinery.preprocess.steps_dry_run import step_faults

__all__ = ["CONTRACT_FILE", "Contract", "ContractInvalid", "Contracts", "load_contract", "load_contracts", "overridden"]


def load_contracts(root: Path) -> Contracts:
    """Read every folder under `root` that holds a contract.yaml; all faults are told at once.

    Raises:
        ContractInvalid: one has a fault, two are of one name, or there is no `default`.
    """
    return Contracts.load(root, _faults)


def load_contract(folder: Path) -> Contract:
    """Read `folder`/contract.yaml. The dataset's steps.py is parsed, never executed.

    Raises:
        ContractInvalid: with every fault on a line of its own, as `file:line: field: fault`.
    """
    return loading.load_contract(folder, _faults)


def overridden(contract: Contract, changes: Mapping[str, Any]) -> Contract:
    """Return `contract` with some fields changed, for one run; a field that is a mapping keeps its other entries.

    Raises:
        ContractInvalid: a change is none that a contract can have.
    """
    return loading.overridden(contract, changes, _faults)


def _faults(contract: Contract) -> Iterator[tuple[Place, str]]:
    yield from inconsistencies(contract)
    yield from step_faults(contract)
