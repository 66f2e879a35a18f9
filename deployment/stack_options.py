"""The options that say which pipeline a command works with: the same for every command.

`--stack NAME` means "on AWS", `--region` and `--profile` say where there; without them the local cloud is meant.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import typer

from flows.refinery.errors import TerminalError

StackOption = Annotated[
    str | None,
    typer.Option("--stack", help="Work with this stack on AWS; without it, with the local cloud.", show_default=False),
]
RegionOption = Annotated[
    str | None, typer.Option("--region", help="The AWS region; without it the profile's.", show_default=False)
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile", help="The AWS profile; without it the credentials of the environment.", show_default=False
    ),
]

_PREFECT_VARIABLES = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")  # never an address: that is the stack's


class StackOptionMissing(TerminalError):
    """--region or --profile was given without --stack, so nothing on AWS was named."""


@dataclass(frozen=True, slots=True)
class StackSelection:
    """Which pipeline a command was asked to work with.

    Attributes:
        stack: the stack's name on AWS; None for the local cloud.
        region: None for the profile's.
        profile: None for the credentials of the environment.
    """

    stack: str | None = None
    region: str | None = None
    profile: str | None = None

    def __post_init__(self) -> None:
        if self.stack is None and (self.region or self.profile):
            raise StackOptionMissing("--region and --profile are for a stack on AWS: name it with --stack")


def users_environment() -> dict[str, str]:
    """Return the AWS and Prefect credentials of this process's own environment, before any of it is taken away."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in _PREFECT_VARIABLES}
