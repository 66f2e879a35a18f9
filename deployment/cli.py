"""The `sluice` command: parses the arguments, calls a command, and turns errors into a message and an exit code.

The exit code is 0 on success, 1 if a file did not have the expected outcome, 2 if the usage is wrong, and 3 if the
command failed for another reason, which the message explains. 70 means a bug in Sluice. 130 means that Ctrl-C stopped
the command, and 143 that SIGTERM or SIGHUP did.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from deployment.commands import new_console, print_error
from deployment.commands.contract import contract_app
from deployment.commands.options import (
    DEFAULT_STATE,
    STATE_VARIABLE,
    Connect,
    StateOption,
    on_selected_stack,
    state_in_use,
    users_of,
)
from deployment.commands.questions import asking
from deployment.environment_variables import only
from deployment.stack_options import (
    NOTIFICATION_VARIABLES,
    ProfileOption,
    RegionOption,
    argument,
    option,
    users_environment,
)
from flows import __version__
from flows.refinery.errors import SluiceError

if TYPE_CHECKING:
    from deployment.aws.environments import Environment

EXIT_NOT_AS_EXPECTED = 1
EXIT_CANNOT = 3
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

app = typer.Typer(
    name="sluice",
    help="Turn files uploaded to S3 into clean, validated data, with a receipt for each file.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(contract_app)

AwsPort = Annotated[
    int | None,
    typer.Option(
        min=1, max=65_535, help="Port of the AWS emulator; by default, the one used last, 4566 or any free one."
    ),
]
PrefectPort = Annotated[
    int | None,
    typer.Option(
        min=1, max=65_535, help="Port of the Prefect server; by default, the one used last, 4200 or any free one."
    ),
]
EnvironmentArgument = Annotated[
    str | None,
    argument(help="NAME for deployment/environments/NAME.yaml, or the path of such a file. Options override the file."),
]
OtherStack = Annotated[str | None, option("--stack", help="The stack's name; by default, the environment's.")]
Deadline = Annotated[float, typer.Option(min=1, help="How many seconds to wait for the files to be processed.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sluice {__version__}")
        raise typer.Exit


@app.callback()
def common_options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Accept the options that need no command, such as --version."""


@app.command()
def demo(
    state: StateOption = DEFAULT_STATE,
    aws_port: AwsPort = None,
    prefect_port: PrefectPort = None,
    deadline: Deadline = 300,
    stay: Annotated[bool, typer.Option(help="Keep everything running afterwards, until Ctrl-C.")] = False,
) -> None:
    """Process sample files in the local cloud, and show the outcome of each.

    Uses the local cloud of a running `sluice up`. If there is none, starts one, which is an AWS emulator and a Prefect
    server, deploys the stack, and registers blocks and deployments. Then uploads good and bad files, and compares the
    outcomes with the expected ones.
    """
    from deployment.commands.demo import demo as run
    from deployment.local.cloud import LocalCloud

    cloud = LocalCloud(state.resolve(), aws_port=aws_port, prefect_port=prefect_port)
    as_expected = run(new_console(), cloud, deadline_seconds=deadline, stay=stay)
    raise typer.Exit(0 if as_expected else EXIT_NOT_AS_EXPECTED)


@app.command()
def up(state: StateOption = DEFAULT_STATE, aws_port: AwsPort = None, prefect_port: PrefectPort = None) -> None:
    """Run the local cloud until Ctrl-C: an AWS emulator, a Prefect server and a Prefect worker.

    Uploads and results are kept for the next start; `sluice clean` deletes them.
    """
    from deployment.commands.up import up as run
    from deployment.local.cloud import LocalCloud

    run(new_console(), LocalCloud(state.resolve(), aws_port=aws_port, prefect_port=prefect_port))


@app.command()
@on_selected_stack
def upload(
    connect: Connect,
    files: Annotated[
        list[str],
        argument(
            help="Files, folders (all files below them), patterns such as 'data/*.csv', and ZIP files (each member is"
            " one upload)."
        ),
    ],
    dataset: Annotated[
        str | None,
        option(help="The dataset; by default, the one whose name a file's name or its folder's name begins with."),
    ] = None,
    wait: Annotated[
        bool, typer.Option(help="Wait for the outcomes; --no-wait returns as soon as the files are uploaded.")
    ] = True,
    deadline: Deadline = 300,
) -> None:
    """Upload files to the local cloud of `sluice up`, or to a stack on AWS, and wait for their receipts.

    A file keeps its path relative to the given folder; a ZIP file counts as a folder. The exit code is 0 if all files
    were published, 1 if a file was rejected, failed or did not finish by the deadline, and 3 if nothing was uploaded.
    """
    from deployment.commands.upload import upload as run

    with connect() as pipeline:
        published = run(new_console(), pipeline, files, dataset=dataset, wait=wait, deadline_seconds=deadline)
    raise typer.Exit(0 if published else EXIT_NOT_AS_EXPECTED)


@app.command()
@on_selected_stack
def status(
    connect: Connect,
    name: Annotated[
        str,
        argument(
            help="Show only these uploads: a dataset, a run ID or its first 8 characters, or the beginning of a file's"
            " name or key."
        ),
    ] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Show only uploads that were rejected or failed.")] = False,
    since: Annotated[
        str | None, option(help="Show only what happened since this time: an age such as 2h or 3d, or a date or time.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The maximum number of finished uploads to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Show recent and running uploads, the queues and the URLs of the local cloud or of a stack on AWS.

    Times are in UTC. A search by a file's name or key also finds uploads that are still waiting. For a dataset, only
    the newest finished upload of each file is shown.
    """
    from deployment.commands.status import status as run
    from deployment.commands.upload_search import Wanted, moment_of

    wanted = Wanted(name, failed, moment_of(since, datetime.now(UTC)) if since else None)
    with connect() as pipeline:
        run(new_console(), pipeline, limit=limit, as_json=as_json, wanted=wanted)


@app.command()
@on_selected_stack
def redrive(
    connect: Connect,
    run_id: Annotated[
        str | None, option("--run", help="Retry only this run: its ID, or the first 8 characters of it.")
    ] = None,
    cancelled: Annotated[
        bool, typer.Option("--cancelled", help="Also retry uploads that were cancelled in Prefect.")
    ] = False,
) -> None:
    """Retry uploads that Sluice gave up on: move their messages from the dead-letter queue to the queue, and start a
    drain.

    Fix the cause first; `sluice status` shows why each upload failed.
    """
    from deployment.commands.redrive import Choice
    from deployment.commands.redrive import redrive as run

    with connect() as pipeline:
        run(new_console(), pipeline, Choice(run_id, cancelled_too=cancelled))


@app.command()
@on_selected_stack
def pause(connect: Connect) -> None:
    """Stop processing until `sluice resume`. New uploads queue up; tasks finish the uploads that they are
    processing."""
    from deployment.commands.pause import pause as run

    with connect() as pipeline:
        run(new_console(), pipeline)


@app.command()
@on_selected_stack
def resume(connect: Connect) -> None:
    """Resume processing after `sluice pause`. Uploads that queued up in the meantime are processed too."""
    from deployment.commands.pause import resume as run

    with connect() as pipeline:
        run(new_console(), pipeline)


@app.command()
@on_selected_stack
def repair(
    connect: Connect,
    file: Annotated[
        Path | None,
        argument(
            help="A file with corrected rows: one that --export wrote, or a quarantine file (Parquet).",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    run_id: Annotated[
        str | None,
        option(
            "--run",
            help="The run that the rows come from: its ID, or the first 8 characters of it; by default, the ID in the"
            " file's name.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        option(
            help="Write the quarantined rows of --run, or of FILE, to this file so that they can be corrected: .xlsx,"
            " in which spreadsheet programs keep every value as text, or .csv.",
            dir_okay=False,
        ),
    ] = None,
    allow_other_changes: Annotated[
        bool, typer.Option("--allow-other-changes", help="Also accept changes to cells that broke no rule.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Publish without asking for confirmation.")] = False,
) -> None:
    """Publish a file again after its quarantined rows were corrected.

    Shows every changed cell and asks for confirmation; then validates the file again and replaces its receipt. With
    --export, nothing is published: the rows are written to a workbook or a CSV file.
    """
    from deployment.commands import repair as command

    if export is not None and file is not None:
        command.export(new_console(), file, export, run_id)
        return
    if file is None and (export is None or run_id is None):
        raise typer.BadParameter("give a file with corrected rows, or use --run and --export to create one")
    with connect() as pipeline:
        if file is not None:
            done = command.repair(
                new_console(), pipeline, file, run_id, allow_other_changes=allow_other_changes, confirm=asking(yes=yes)
            )
            raise typer.Exit(0 if done else EXIT_NOT_AS_EXPECTED)
        if export is not None and run_id is not None:
            command.export_run(new_console(), pipeline, run_id, export)


@app.command()
@on_selected_stack
def read(
    connect: Connect,
    dataset: Annotated[str, argument(help="The dataset.")],
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="The maximum number of rows; by default 20 are shown and all are exported."),
    ] = None,
    export: Annotated[
        Path | None,
        option(
            help="Write the rows to this file instead of showing them: .parquet (which keeps types), .csv or .xlsx.",
            dir_okay=False,
        ),
    ] = None,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Read the rows in quarantine instead of the published ones.")
    ] = False,
    run_id: Annotated[
        str | None, option("--run", help="Read only the rows of this run: its ID, or the first 8 characters of it.")
    ] = None,
    with_source: Annotated[
        bool, typer.Option("--with-source", help="Add columns with the run ID and the object key of each row's file.")
    ] = False,
) -> None:
    """Show or export the published rows of a dataset, from the current version of each file.

    The exit code is 1 if some of the rows cannot be read.
    """
    from deployment.commands import read as command
    from flows.published.rows import Selection

    rows = command.SHOWN_ROWS if limit is None and export is None else limit
    selection = Selection(run=run_id, quarantine=quarantine, with_source=with_source, limit=rows)
    with connect() as pipeline:
        complete = command.read(new_console(), pipeline, dataset, selection, export)
    raise typer.Exit(0 if complete else EXIT_NOT_AS_EXPECTED)


@app.command()
def deploy(
    context: typer.Context,
    environment: EnvironmentArgument = None,
    stack: OtherStack = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    parameter: Annotated[list[str] | None, option(help="A template parameter as NAME=VALUE; may be repeated.")] = None,
    image: Annotated[
        str | None, option(help="An image in a registry; by default, the image is built here and pushed.")
    ] = None,
    prefect_url: Annotated[
        str | None, option(help="The URL at which this machine reaches Prefect's API, if tasks use a different one.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Answer yes to every question.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes without deploying anything.")] = False,
    skip_prefect: Annotated[bool, typer.Option("--skip-prefect", help="Do not register anything in Prefect.")] = False,
    smoke_test: Annotated[bool, typer.Option(help="Process one small file at the end.")] = True,
    deadline: Annotated[float, typer.Option(min=1, help="How many seconds to wait for the small file.")] = 900,
) -> None:
    """Create or update a deployment on AWS: the image, the stack and Prefect, then a smoke test with one small file.

    Changes are shown and must be confirmed. If the command fails, run it again: it continues where it stopped.
    A dry run uploads only the template, because CloudFormation must read it, and only if the artifact bucket exists.
    """
    from deployment.commands.deploy import DeployOptions
    from deployment.commands.deploy import deploy as run

    wanted = _environment(environment, stack=stack, region=region, profile=profile, parameters=parameter or [])
    more = {"image": image, "prefect_url_from_here": prefect_url}
    options = DeployOptions(
        environment=wanted.model_copy(update={name: value for name, value in more.items() if value}),
        dry_run=dry_run,
        skip_prefect=skip_prefect,
        smoke_test=smoke_test,
        smoke_test_seconds=deadline,
        home=DEFAULT_STATE / "aws" / "prefect",
    )
    published = run(new_console(), options, users_of(context), asking(yes=yes))
    raise typer.Exit(0 if published else EXIT_NOT_AS_EXPECTED)


@app.command()
def destroy(
    context: typer.Context,
    environment: EnvironmentArgument = None,
    stack: OtherStack = None,
    region: RegionOption = None,
    profile: ProfileOption = None,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Also delete the buckets and their contents; each name must be typed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the stack without asking for confirmation.")] = False,
) -> None:
    """Delete a stack from AWS. Uploads and results are kept unless --delete-data is given."""
    from deployment.commands.destroy import destroy as run

    wanted = _environment(environment, stack=stack, region=region, profile=profile, parameters=[])
    run(
        new_console(),
        wanted,
        users_of(context),
        delete_data=delete_data,
        ask=asking(yes=yes),
        type_in=lambda question: str(typer.prompt(question, default="", show_default=False)),
        home=DEFAULT_STATE / "aws" / "prefect",
    )


@app.command()
def clean(
    state: StateOption = DEFAULT_STATE,
    cache: Annotated[
        bool, typer.Option("--cache", help="Also delete the cache that speeds up the first start.")
    ] = False,
) -> None:
    """Delete the local cloud's state: uploads, receipts, flow runs and logs."""
    from deployment.commands.clean import clean as run

    run(new_console(), state.resolve(), cache_too=cache)


def main() -> None:
    """Run the `sluice` command; this is the console script's entry point."""
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _terminate)
    given = os.environ.get(STATE_VARIABLE)
    state_in_use.set(Path(given).resolve() if given else None)
    try:
        # Most commands are local and must not use the user's AWS and Prefect variables. Commands for AWS restore them.
        users = users_environment()
        kept = (STATE_VARIABLE, "SLUICE_DOCKER", *NOTIFICATION_VARIABLES)
        with only({name: os.environ[name] for name in kept if name in os.environ}):
            app(standalone_mode=True, obj=users)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except SluiceError as error:
        print_error(str(error))
        sys.exit(EXIT_CANNOT)
    except Exception as error:  # noqa: BLE001 (the last resort: print a message, and write the details to a file)
        print_error(f"Unexpected error: {type(error).__name__}: {error}{_kept_details()}")
        sys.exit(EXIT_INTERNAL)


def _environment(
    name: str | None, *, stack: str | None, region: str | None, profile: str | None, parameters: list[str]
) -> Environment:
    """Return the named environment; options override the file's values."""
    from deployment.aws.environments import load_environment

    named = load_environment(name)
    given = dict(one.partition("=")[::2] for one in parameters)
    if wrong := [one for one in parameters if "=" not in one]:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", param_hint="--parameter")
    options = {"stack": stack, "region": region, "profile": profile}
    return type(named).model_validate(
        named.model_dump()
        | {name: value for name, value in options.items() if value}
        | {"parameters": named.parameters | given}
    )


def _kept_details() -> str:
    path = (state_in_use.get() or DEFAULT_STATE) / "logs" / "sluice-error.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(traceback.format_exc(), errors="backslashreplace")
    except OSError:
        return ""
    return f"\nThe details are in {path}."


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)


if __name__ == "__main__":
    main()
