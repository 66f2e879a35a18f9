"""Parses the arguments of the `sluice contract` commands, calls each command's module, and sets the exit code.

The exit code is 0 if the command succeeded or the file is accepted. It is 1 if the file is rejected or cannot be read
as a table, or if a question was answered with no. It is 2 if the usage is wrong, or if trying again would not help, for
example because a contract is invalid.
"""

from __future__ import annotations  # so that the type of `connect` is not imported

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from deployment import PROJECT_ROOT
from deployment.commands import new_console, print_error
from deployment.commands.options import Connect, on_selected_stack
from deployment.commands.questions import asking
from deployment.stack_options import argument, option
from flows.refinery.errors import FileRejected, TerminalError

EXIT_REJECTED = 1
EXIT_USAGE = 2
_CONTRACTS = PROJECT_ROOT / "flows" / "contracts"

contract_app = typer.Typer(
    name="contract",
    help="Propose, check, compare and publish the contracts of datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ContractsFolder = Annotated[
    Path, typer.Option("--contracts", help="The folder with one subfolder per dataset.", show_default="flows/contracts")
]
ContractName = Annotated[
    str,
    argument(
        help="A dataset, the path of a contract's folder or contract.yaml, REVISION:DATASET for a revision in this git"
        " repository, or live:DATASET for the contract that a stack uses."
    ),
]
Dataset = Annotated[str, argument(help="The dataset.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
File = Annotated[Path, argument(help="The data file.", exists=True, dir_okay=False, readable=True)]


@contract_app.command()
def new(
    dataset: Annotated[str, argument(help="The dataset's name.")],
    sample: File,
    contracts: ContractsFolder = _CONTRACTS,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing contract.")] = False,
) -> None:
    """Propose a contract based on a sample file: types, ranges, sets and keys, with comments that describe the sample.

    All rows of the sample that can be decoded pass the contract. Correct it where you know more than the sample shows.
    """
    from deployment.commands.contract_new import new as run

    with _errors_as_exit_codes():
        run(new_console(), dataset, sample, contracts, force=force)


@contract_app.command()
@on_selected_stack
def check(
    connect: Connect,
    contract: ContractName,
    file: File,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the files that would be published and quarantined into this folder.", file_okay=False),
    ] = None,
    contracts: ContractsFolder = _CONTRACTS,
) -> None:
    """Check a file against a contract, and show every rule with counts and examples, the columns and the result.

    Runs on this machine, and writes nothing unless --output is given.
    """
    from deployment.commands.contract_check import check as run
    from deployment.commands.contract_files import found_contract

    with _errors_as_exit_codes(), found_contract(contract, contracts, connect) as found:
        accepted = run(new_console(), found, file, output)
    raise typer.Exit(0 if accepted else EXIT_REJECTED)


@contract_app.command()
@on_selected_stack
def diff(
    connect: Connect,
    before: ContractName,
    after: Annotated[str, argument(help="The contract after the change, specified like BEFORE.")],
    contracts: ContractsFolder = _CONTRACTS,
) -> None:
    """Show what a change to a contract means: which rules get stricter or looser, and how the published data
    changes."""
    from deployment.commands.contract_diff import show_changes
    from deployment.commands.contract_files import found_contract

    with (
        _errors_as_exit_codes(),
        found_contract(before, contracts, connect) as old,
        found_contract(after, contracts, connect) as new,
    ):
        show_changes(new_console(), old, new)


@contract_app.command()
@on_selected_stack
def publish(
    connect: Connect, contract: ContractName, contracts: ContractsFolder = _CONTRACTS, yes: Yes = False
) -> None:
    """Make a contract live in the local cloud or in a stack on AWS, without deploying a new image.

    The contract is checked first; its changes are shown and must be confirmed. Tasks use it within a minute.
    """
    from deployment.commands import contract_publish as command
    from deployment.commands.contract_files import found_contract

    with connect() as stack, _errors_as_exit_codes(), found_contract(contract, contracts, connect) as found:
        done = command.publish(new_console(), stack, found, asking(yes=yes))
    raise typer.Exit(0 if done else EXIT_REJECTED)


@contract_app.command()
@on_selected_stack
def rollback(connect: Connect, dataset: Dataset, yes: Yes = False) -> None:
    """Go back to the contract that the live one replaced: an earlier published one, or the one in the image."""
    from deployment.commands import contract_publish as command

    with connect() as stack, _errors_as_exit_codes():
        done = command.rollback(new_console(), stack, dataset, asking(yes=yes))
    raise typer.Exit(0 if done else EXIT_REJECTED)


@contract_app.command()
@on_selected_stack
def show(
    connect: Connect,
    dataset: Annotated[str | None, argument(help="The dataset.")] = None,
    content_hash: Annotated[
        str | None,
        option("--hash", help="Print the contract with this hash from a receipt; the beginning of the hash is enough."),
    ] = None,
    run: Annotated[
        str | None, option("--run", help="Print the contract that this run used: its ID, or the first 8 characters.")
    ] = None,
) -> None:
    """Print a dataset's live contract or one that an earlier run used; without arguments, list published contracts."""
    from deployment.commands import contract_publish as command

    with connect() as stack, _errors_as_exit_codes():
        command.show(new_console(), stack, dataset, content_hash, run)


@contract_app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option(help="Write the schema to this file instead of printing it.", dir_okay=False)
    ] = None,
) -> None:
    """Print the JSON Schema of contract.yaml, which editors use to complete and check contracts."""
    from deployment.commands.user_paths import written_to
    from flows.refinery.propose.contract_schema import render_schema

    text = render_schema()
    if output is None:
        typer.echo(text, nl=False)
        return
    with _errors_as_exit_codes(), written_to(output):
        output.write_text(text, encoding="utf-8")


@contextmanager
def _errors_as_exit_codes() -> Iterator[None]:
    """Turn a TerminalError in the block into an error message and an exit code: 1 for a rejected file, otherwise 2."""
    try:
        yield
    except TerminalError as error:
        print_error(str(error))
        raise typer.Exit(EXIT_REJECTED if isinstance(error, FileRejected) else EXIT_USAGE) from None
