"""Finds a contract by dataset or by path, in the working tree, in a git revision, or among the published contracts."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.settings import CONTRACTS
from deployment.commands.options import Connect
from flows.refinery.contract.loading import CONTRACT_FILE, ContractInvalid, load_contract, parse_contract
from flows.refinery.contract.model import Contract
from flows.refinery.suggestions import did_you_mean

_GIT_SECONDS = 30
_PUBLISHED = "live"


@contextmanager
def found_contract(name: str, contracts: Path, connect: Connect) -> Iterator[Contract]:
    """Load a contract, and keep its files available while the block runs. Raise ContractInvalid if it does not exist
    or is invalid.

    Args:
        name: a dataset, a path, REVISION:DATASET in git, or live:DATASET for the contract that a stack uses.
        contracts: the folder with one subfolder per dataset.
        connect: connects to the stack that live:DATASET refers to.
    """
    revision, colon, dataset = name.rpartition(":")
    if not colon or Path(name).exists():
        yield contract_of(name, contracts)
        return
    if revision == _PUBLISHED:
        from deployment.deployed_stack import store_of
        from flows.pipeline.published_contracts import live_or_last_used

        with connect() as stack:
            text = live_or_last_used(store_of(stack), dataset)
        yield parse_contract(text.encode(), name, contracts / dataset)
        return
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        _extract_from_git(revision, dataset, contracts, Path(folder))
        yield load_contract(Path(folder) / dataset)


def contract_of(name_or_path: str, contracts: Path = CONTRACTS) -> Contract:
    """Load a contract by its dataset's name, or by the path of its folder or contract.yaml. Raise ContractInvalid if
    it does not exist or is invalid."""
    if "/" not in name_or_path and (contracts / name_or_path / CONTRACT_FILE).is_file():
        return load_contract(contracts / name_or_path)
    path = Path(name_or_path)
    folder = path.parent if path.name == CONTRACT_FILE and path.is_file() else path
    if (folder / CONTRACT_FILE).is_file():
        return load_contract(folder.resolve())
    known = sorted(found.parent.name for found in contracts.glob(f"*/{CONTRACT_FILE}"))
    raise ContractInvalid(
        f"there is no contract {name_or_path!r}; give a dataset ({', '.join(known)}) or the path of a folder with a "
        f"{CONTRACT_FILE}{did_you_mean(name_or_path, known)}"
    )


def _extract_from_git(revision: str, dataset: str, contracts: Path, folder: Path) -> None:
    if revision.startswith("-") or dataset.startswith("-") or Path(dataset).name != dataset:
        raise ContractInvalid(f"{revision}:{dataset} is not a valid REVISION:DATASET")
    command = ["git", "-C", str(contracts), "archive", "--format=tar", revision, dataset]
    try:
        archive = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContractInvalid(f"git failed on {revision}:{dataset}: {type(error).__name__}") from None
    if archive.returncode:
        errors = archive.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ContractInvalid(
            f"git has no contract {revision}:{dataset}: {errors[-1] if errors else 'no reason given'}"
        )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
