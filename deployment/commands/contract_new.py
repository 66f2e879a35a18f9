"""`sluice contract new`: proposes a contract from a sample file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from flows.refinery.authoring.proposal import Proposal, propose_contract
from flows.refinery.contract.loading import CONTRACT_FILE
from flows.refinery.errors import TerminalError


class ContractThere(TerminalError):
    """There is a contract already where the new one would be written."""


def new(console: Console, dataset: str, sample: Path, contracts: Path, *, force: bool) -> Path:
    """Write `contracts`/`dataset`/contract.yaml for a sample file, and return its path.

    Raises:
        ContractThere: one lies there, and `force` was not said.
        FileRejected: the sample cannot be read as a table.
        ContractInvalid: `dataset` is no possible name.
    """
    proposal = propose_contract(sample, dataset)  # refuses a name that could lead elsewhere
    path = contracts / dataset / CONTRACT_FILE
    if path.exists() and not force:
        raise ContractThere(f"{path} is there already; --force replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(proposal.text, encoding="utf-8")
    _tell(console, proposal, path, sample)
    return path


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
