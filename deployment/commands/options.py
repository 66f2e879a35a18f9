"""Options that several commands share: --state, which is the local cloud's state folder, and those that select a
stack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from deployment import PROJECT_ROOT
from deployment.stack_options import ProfileOption, RegionOption, StackOption, StackSelection

if TYPE_CHECKING:
    from deployment.deployed_stack import DeployedStack

DEFAULT_STATE = PROJECT_ROOT / ".sluice"
STATE_VARIABLE = "SLUICE_STATE"
state_in_use: ContextVar[Path | None] = ContextVar("state folder of the command that runs", default=None)

Connect: TypeAlias = "Callable[[], AbstractContextManager[DeployedStack]]"
"""A function that connects to the stack that the options select. It raises the same errors as `selected_stack`."""


def _remember(state: Path) -> Path:
    """Remember the state folder, because `main` writes the details of an unexpected error there."""
    state_in_use.set(state.resolve())
    return state


StateOption = Annotated[
    Path,
    typer.Option(
        help="The folder that keeps the local cloud's state.",
        envvar=STATE_VARIABLE,
        show_default=".sluice",
        file_okay=False,
        callback=_remember,
    ),
]


def users_of(context: typer.Context) -> dict[str, str]:
    """Return the variables that `main` read with `users_environment` before it removed the AWS and Prefect variables
    from this process."""
    users: dict[str, str] = context.obj or {}
    return users


def on_selected_stack(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --state, --stack, --region and --profile to a command. The command's first parameter must be
    `connect: Connect`, which connects to the stack that these options select."""

    @wraps(command)
    def with_options(
        context: typer.Context, state: Path, stack: str | None, region: str | None, profile: str | None, **given: Any
    ) -> None:
        selection, users = StackSelection(stack, region, profile), users_of(context)

        def connect() -> AbstractContextManager[DeployedStack]:
            from deployment.deployed_stack import selected_stack

            return selected_stack(selection, state.resolve(), users)

        command(connect, **given)

    def parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [
        parameter("context", typer.Context, inspect.Parameter.empty),
        *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own),
        parameter("state", StateOption, DEFAULT_STATE),
        parameter("stack", StackOption),
        parameter("region", RegionOption),
        parameter("profile", ProfileOption),
    ]
    # typer reads both of these.
    with_options.__dict__["__signature__"] = inspect.Signature(parameters)
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options
