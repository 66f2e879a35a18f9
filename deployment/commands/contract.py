"""The `sluice contract` commands: parse, delegate, and set the exit code.

Exit codes: 0 done, or the file is accepted; 1 the file is rejected, or is not a readable table; 2 wrong usage, or an
invalid contract.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from deployment import PROJECT_ROOT
from deployment.commands import new_console, print_error
from flows.refinery.errors import FileRejected, TerminalError

EXIT_REJECTED = 1
EXIT_USAGE = 2
_CONTRACTS = PROJECT_ROOT / "flows" / "contracts"

contract_app = typer.Typer(
    name="contract",
    help="Propose the contract of a dataset, check it on a file, compare two contracts.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ContractsFolder = Annotated[
    Path, typer.Option("--contracts", help="The folder with one folder per dataset.", show_default="flows/contracts")
]
ContractName = Annotated[
    str, typer.Argument(help="A dataset, or the path of a contract's folder or contract.yaml.", show_default=False)
]
File = Annotated[Path, typer.Argument(help="The file.", exists=True, dir_okay=False, readable=True, show_default=False)]


@contract_app.command()
def new(
    dataset: Annotated[str, typer.Argument(help="The dataset's name.", show_default=False)],
    sample: File,
    contracts: ContractsFolder = _CONTRACTS,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing contract.")] = False,
) -> None:
    """Propose a contract from a sample file: types, ranges, sets and keys, with comments on what the sample contains.

    The sample passes the proposed contract. Read it and change what you know better.
    """
    from deployment.commands.contract_new import new as run

    with _errors_as_exit_codes():
        run(new_console(), dataset, sample, contracts, force=force)


@contract_app.command()
def check(
    contract: ContractName,
    file: File,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the files that would be published and quarantined into this folder.", file_okay=False),
    ] = None,
    contracts: ContractsFolder = _CONTRACTS,
) -> None:
    """Check a file against a contract: show every rule with counts and examples, the columns, the rows, the verdict.

    Runs on this machine only, and writes nothing unless --output is given.
    """
    from deployment.commands.contract_check import check as run
    from deployment.commands.contract_files import contract_of

    with _errors_as_exit_codes():
        accepted = run(new_console(), contract_of(contract, contracts), file, output)
    raise typer.Exit(0 if accepted else EXIT_REJECTED)


@contract_app.command()
def diff(
    before: Annotated[
        str,
        typer.Argument(
            help="A dataset, a contract's folder or contract.yaml, or REVISION:DATASET of this git repository.",
            show_default=False,
        ),
    ],
    after: Annotated[str, typer.Argument(help="The same, for the contract after the change.", show_default=False)],
    contracts: ContractsFolder = _CONTRACTS,
) -> None:
    """Show what a change to a contract means: which rules are stricter or looser, and what is published differently."""
    from deployment.commands.contract_diff import diff as run

    with _errors_as_exit_codes():
        run(new_console(), before, after, contracts)


@contract_app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option(help="Write it to this file instead of printing it.", dir_okay=False)
    ] = None,
) -> None:
    """Print the JSON Schema of contract.yaml, with which editors complete and check contracts."""
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
    """Print an error as one sentence, and exit with the code for its kind."""
    try:
        yield
    except TerminalError as error:
        print_error(str(error))
        raise typer.Exit(EXIT_REJECTED if isinstance(error, FileRejected) else EXIT_USAGE) from None
