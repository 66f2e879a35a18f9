"""Check a loaded contract completely, before any row is validated. Loading it (contract/) checks only its structure.

Great Expectations (GX) checks the expectations, and the built-in steps are run on an empty table. The first call
imports GX, which takes over a second, so code that needs only a contract's structure should not call this.
"""

from collections.abc import Iterable, Iterator

from flows.refinery.contract.loading import ContractInvalid, Fault, fault_lines
from flows.refinery.contract.model import Contract
from flows.refinery.preprocess.steps_dry_run import step_faults
from flows.refinery.validate.expectation_faults import expectation_faults

_SOUND: set[str] = set()
"""Content hashes of the contracts that passed, so that a task that processes many files checks each contract once."""


def check_contract(contract: Contract) -> None:
    """Check a contract's expectations and steps. Raise ContractInvalid with one line per error (see `fault_lines`)."""
    check_contracts([contract])


def check_contracts(contracts: Iterable[Contract]) -> None:
    """Check several contracts. Raise ContractInvalid with one line per error in any of them (see `fault_lines`)."""
    unchecked = [contract for contract in contracts if contract.content_hash not in _SOUND]
    lines = [line for contract in unchecked for line in fault_lines(contract, _faults(contract))]
    if lines:
        raise ContractInvalid("\n".join(lines))
    _SOUND.update(contract.content_hash for contract in unchecked)


def _faults(contract: Contract) -> Iterator[Fault]:
    yield from expectation_faults(contract)
    yield from step_faults(contract)
