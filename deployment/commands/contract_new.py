"""`sluice contract new`: proposes a contract from a sample file."""

import json
import shlex
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from deployment.commands.progress import shown_after_a_second
from deployment.commands.user_paths import written_to
from flows.refinery.contract.loading import CONTRACT_FILE
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError
from flows.refinery.propose.proposal import Proposal, propose_contract
from flows.refinery.words import counted


class ContractExists(TerminalError):
    """The new contract would overwrite an existing one, and --force was not given."""


class DatasetNameInvalid(TerminalError):
    """A dataset's name is not valid: because it is part of paths, only some characters are allowed."""


def new(console: Console, dataset: str, sample: Path, contracts: Path, *, force: bool) -> Path:
    """Write a proposed contract for a sample file to `contracts`/`dataset`/contract.yaml, and return its path.

    Raises:
        ContractExists: the dataset already has a contract, and `force` is not set.
        FileRejected: the sample cannot be read as a table.
        NothingDecoded: none of the sample's rows can be decoded.
        DatasetNameInvalid: the name contains characters that are not allowed, or is too long.
        PathUnwritable: `contracts` cannot be written.
    """
    try:
        Contract(dataset=dataset)
    except ValidationError:  # an invalid name could be the path of a different folder
        raise DatasetNameInvalid(
            f"a dataset cannot be named {dataset!r}: a name has 1 to 63 lower-case letters, digits, underscores and "
            "hyphens, and begins with a letter or a digit"
        ) from None
    with shown_after_a_second(console, f"reading {escape(sample.name)}") as on_progress:
        proposal = propose_contract(sample, dataset, on_progress=on_progress)
    path = contracts / dataset / CONTRACT_FILE
    if path.exists() and not force:
        raise ContractExists(f"{path} already exists; --force replaces it")
    with written_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(proposal.text, encoding="utf-8")
    _report(console, proposal, path, sample)
    return path


def _report(console: Console, proposal: Proposal, path: Path, sample: Path) -> None:
    contract, refined = proposal.contract, proposal.refined
    columns, expectations = counted(len(contract.columns), "column"), counted(len(contract.expectations), "expectation")
    console.out(f"wrote {path}: {columns}, {expectations}")
    rows, undecodable = refined.rows_in, sum(refined.quarantined.values())
    if undecodable:
        line = f"{undecodable:,} of {rows:,} rows of the sample could not be decoded; the others pass."
    elif rows:
        line = "The sample's only row passes it." if rows == 1 else f"All {rows:,} rows of the sample pass it."
    else:
        line = "The sample has no rows, so the type of every column is proposed as string."
    console.print(line, style="green" if rows and not undecodable else "yellow")
    for option, value in proposal.profile.found.options.items():
        guess = escape(f"{option}: {json.dumps(value)}")
        console.print(f"Guessed, because the file itself cannot prove it: {guess}", style="yellow")
    if proposal.profile.found.doubt:
        console.print(f"Check this first: {escape(proposal.profile.found.doubt)}", style="yellow")
    console.print("The contract describes only this sample. Correct it where you know more, then check it:")
    console.out(f"  sluice contract check {shlex.quote(str(path.parent))} {shlex.quote(str(sample))}")
