"""The `sluice contract` commands: parse, delegate, and say with the exit code what came out.

Exit codes: 0 done, or the file is accepted; 1 the file is rejected, or cannot be read as a table; 2 wrong usage, or a
contract that cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployment import PROJECT_ROOT
from flows.refinery.errors import FileRejected, TerminalError

EXIT_REJECTED = 1
EXIT_USAGE = 2
_CONTRACTS = PROJECT_ROOT / "flows" / "contracts"

contract_app = typer.Typer(
    name="contract",
    help="Write a dataset's contract, try it on a file, compare two.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Contracts = Annotated[Path, typer.Option("--contracts", help="The folder that holds one folder per dataset.")]
ContractName = Annotated[
    str, typer.Argument(help="A dataset, or the path of a contract's folder or contract.yaml.", show_default=False)
]
File = Annotated[Path, typer.Argument(help="The file.", exists=True, dir_okay=False, readable=True, show_default=False)]


@contract_app.command()
def new(
    dataset: Annotated[str, typer.Argument(help="The dataset's name.", show_default=False)],
    sample: File,
    contracts: Contracts = _CONTRACTS,
    force: Annotated[bool, typer.Option("--force", help="Replace a contract that is there already.")] = False,
) -> None:
    """Propose a contract from a sample file: types, ranges, sets, keys, with a comment on what the sample showed.

    The sample passes the contract that is written. Read it and change what you know better.
    """
    from deployment.commands.contract_new import new as run

    with _said_with_exit_codes():
        run(Console(), dataset, sample, contracts, force=force)


@contract_app.command()
def check(
    contract: ContractName,
    file: File,
    output: Annotated[
        Path | None,
        typer.Option(help="Write what would be published and quarantined into this folder.", file_okay=False),
    ] = None,
    contracts: Contracts = _CONTRACTS,
) -> None:
    """Show what a contract makes of a file: every rule with counts and examples, the columns, the rows, the verdict.

    Runs on this machine alone and writes nothing, unless --output is given.
    """
    from deployment.commands.contract_check import check as run
    from deployment.commands.contract_files import contract_of

    with _said_with_exit_codes():
        accepted = run(Console(), contract_of(contract, contracts), file, output)
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
    contracts: Contracts = _CONTRACTS,
) -> None:
    """Say what a change of a contract means: what becomes stricter, what looser, what comes out otherwise."""
    from deployment.commands.contract_diff import diff as run

    with _said_with_exit_codes():
        run(Console(), before, after, contracts)


@contract_app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option(help="Write it into this file instead of printing it.", dir_okay=False)
    ] = None,
) -> None:
    """Print the JSON Schema of contract.yaml, from which editors complete and check contracts."""
    from deployment.commands.user_paths import written_to
    from flows.refinery.propose.contract_schema import render_schema

    text = render_schema()
    if output is None:
        typer.echo(text, nl=False)
        return
    with _said_with_exit_codes(), written_to(output):
        output.write_text(text, encoding="utf-8")


@contextmanager
def _said_with_exit_codes() -> Iterator[None]:
    """Say an error in a sentence, and end with the exit code for its kind."""
    try:
        yield
    except FileRejected as error:
        _say(str(error))
        raise typer.Exit(EXIT_REJECTED) from None
    except TerminalError as error:
        _say(str(error))
        raise typer.Exit(EXIT_USAGE) from None


def _say(message: str) -> None:
    Console(stderr=True).print(f"sluice: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
