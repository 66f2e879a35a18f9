"""Check a contract completely, before any row is judged: its shape is known already (contract/), this asks the rest.

Great Expectations is asked about the expectations and pandas about the steps, so the first call imports GX, which takes
seconds. What needs only a contract's shape, as `sluice status` or the deadlines in Prefect, does not come here.
"""

from collections.abc import Iterable, Iterator

from flows.refinery.contract.loading import ContractInvalid, Fault, fault_lines
from flows.refinery.contract.model import Contract
from flows.refinery.preprocess.steps_dry_run import step_faults
from flows.refinery.validate.expectation_faults import expectation_faults

_SOUND: set[str] = set()
"""Content hashes of the contracts that were found sound: a task that handles many files checks each contract once."""


def check_contract(contract: Contract) -> None:
    """Find what no file could pass and what no step could do. Raise ContractInvalid with one line per fault,
    as `file:line: field: fault`."""
    check_contracts([contract])


def check_contracts(contracts: Iterable[Contract]) -> None:
    """Check several contracts, and report the faults of all of them at once. Raise ContractInvalid as
    check_contract."""
    unchecked = [contract for contract in contracts if contract.content_hash not in _SOUND]
    lines = [line for contract in unchecked for line in fault_lines(contract, _faults(contract))]
    if lines:
        raise ContractInvalid("\n".join(lines))
    _SOUND.update(contract.content_hash for contract in unchecked)


def _faults(contract: Contract) -> Iterator[Fault]:
    yield from expectation_faults(contract)
    yield from step_faults(contract)
