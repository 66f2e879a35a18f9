"""`sluice contract diff`: show what a change to a contract means."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from deployment.commands.contract_files import contract_of
from flows.refinery.contract.diff import Effect, changes_between
from flows.refinery.contract.loading import ContractInvalid, load_contract
from flows.refinery.contract.model import Contract

_STYLES = {Effect.STRICTER: "yellow", Effect.LOOSER: "green", Effect.NONE: "dim"}
_GIT_SECONDS = 30


def diff(console: Console, before: str, after: str, contracts: Path) -> None:
    """Print every change between two contracts, the stricter rules first. Raise ContractInvalid if there is no such
    contract, or its file is wrong."""
    with _contract(before, contracts) as old, _contract(after, contracts) as new:
        changes = changes_between(old, new)
        same = old.content_hash == new.content_hash
    if not changes:
        console.print("The two contracts are the same." if same else "The two contracts differ in wording only.")
    width = max((len(change.effect) for change in changes), default=0)
    for change in changes:
        style = _STYLES.get(change.effect, "cyan")
        console.print(f"[{style}]{change.effect:<{width}}[/]  {escape(change.message)}")


@contextmanager
def _contract(name: str, contracts: Path) -> Iterator[Contract]:
    """Provide the contract of a name, path, or REVISION:DATASET; its files exist while the block runs."""
    revision, colon, dataset = name.rpartition(":")
    if not colon or Path(name).exists():
        yield contract_of(name, contracts)
        return
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        _extract_from_git(revision, dataset, contracts, Path(folder))
        yield load_contract(Path(folder) / dataset)


def _extract_from_git(revision: str, dataset: str, contracts: Path, folder: Path) -> None:
    if revision.startswith("-") or dataset.startswith("-") or Path(dataset).name != dataset:
        raise ContractInvalid(f"{revision}:{dataset} is not a REVISION:DATASET")
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
