"""Find a contract by the name of its dataset or by a path."""

from pathlib import Path

from blocks.settings import CONTRACTS
from flows.refinery.contract.loading import CONTRACT_FILE, ContractInvalid, load_contract
from flows.refinery.contract.model import Contract
from flows.refinery.suggestions import did_you_mean


def contract_of(name_or_path: str, contracts: Path = CONTRACTS) -> Contract:
    """Load a contract by its dataset, or by the path of its folder or contract.yaml. Raise ContractInvalid if there is
    none, or it is wrong."""
    if "/" not in name_or_path and (contracts / name_or_path / CONTRACT_FILE).is_file():
        return load_contract(contracts / name_or_path)
    path = Path(name_or_path)
    folder = path.parent if path.name == CONTRACT_FILE and path.is_file() else path
    if (folder / CONTRACT_FILE).is_file():
        return load_contract(folder.resolve())
    known = sorted(found.parent.name for found in contracts.glob(f"*/{CONTRACT_FILE}"))
    raise ContractInvalid(
        f"there is no contract {name_or_path!r}{did_you_mean(name_or_path, known)}; "
        f"name a dataset ({', '.join(known)}), or the folder of a {CONTRACT_FILE}"
    )
