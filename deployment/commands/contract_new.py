"""`sluice contract new`: proposes a contract from a sample file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from deployment.commands.user_paths import written_to
from flows.refinery.contract.loading import CONTRACT_FILE
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError
from flows.refinery.propose.proposal import Proposal, propose_contract


class ContractThere(TerminalError):
    """There is a contract already where the new one would be written."""


class DatasetNameInvalid(TerminalError):
    """A dataset cannot have this name, which names folders and prefixes."""


def new(console: Console, dataset: str, sample: Path, contracts: Path, *, force: bool) -> Path:
    """Write `contracts`/`dataset`/contract.yaml for a sample file, and return its path.

    Raises:
        ContractThere: one lies there, and `force` was not said.
        FileRejected: the sample cannot be read as a table.
        DatasetNameInvalid: `dataset` is no possible name.
        PathUnwritable: `contracts` is no folder that can be written.
    """
    _check_name(dataset)
    proposal = propose_contract(sample, dataset)
    path = contracts / dataset / CONTRACT_FILE
    if path.exists() and not force:
        raise ContractThere(f"{path} is there already; --force replaces it")
    with written_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(proposal.text, encoding="utf-8")
    _tell(console, proposal, path, sample)
    return path


def _check_name(dataset: str) -> None:
    """Refuse a name that no contract may have, and with it one that would lead elsewhere."""
    try:
        Contract(dataset=dataset)
    except ValidationError:
        raise DatasetNameInvalid(
            f"no dataset can be named {dataset!r}: a name has 1 to 63 lower-case letters, digits, underscores and "
            "hyphens, and begins with a letter or a digit"
        ) from None


def _tell(console: Console, proposal: Proposal, path: Path, sample: Path) -> None:
    contract, validated = proposal.contract, proposal.validated
    console.print(
        f"wrote {path}: {_count(len(contract.columns), 'column')}, {_count(len(contract.expectations), 'expectation')}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    undecodable = sum(validated.quarantined.values())
    if undecodable:
        console.print(
            f"{undecodable:,} of {validated.rows_in:,} rows of the sample could not be decoded; the others pass.",
            style="yellow",
            highlight=False,
        )
    elif validated.rows_in:
        rows = "The one row" if validated.rows_in == 1 else f"All {validated.rows_in:,} rows"
        passes = "passes" if validated.rows_in == 1 else "pass"
        console.print(f"{rows} of the sample {passes} it.", style="green", highlight=False)
    else:
        console.print("The sample has no rows, so every column is taken for text.", style="yellow", highlight=False)
    console.print(
        "It says what the sample holds; you know what the data means. Edit it, then try it:",
        f"  sluice contract check {path.parent} {sample}",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
