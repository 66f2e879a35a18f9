"""The options --stack, --region and --profile, with which every command selects the stack that it works with.

`--stack NAME` selects a stack on AWS; `--region` and `--profile` select the region and the account. Without --stack, a
command works with the local cloud.
"""

import os
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from flows.refinery.errors import TerminalError

# The help shows no defaults: the texts describe them.
option, argument = partial(typer.Option, show_default=False), partial(typer.Argument, show_default=False)

StackOption = Annotated[str | None, option("--stack", help="The stack on AWS; by default the local cloud.")]
RegionOption = Annotated[str | None, option("--region", help="The AWS region; by default the profile's.")]
ProfileOption = Annotated[
    str | None, option("--profile", help="The AWS profile; by default the environment's credentials.")
]

_PREFECT_VARIABLES = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")  # not the address, which the stack has
NOTIFICATION_VARIABLES = ("SLUICE_NOTIFY_URL", "SLUICE_NOTIFY_QUARANTINED_PERCENT")


class StackOptionMissing(TerminalError):
    """--region or --profile was given without --stack."""


@dataclass(frozen=True, slots=True)
class StackSelection:
    """Which stack a command works with."""

    stack: str | None = None  # the stack's name on AWS; None for the local cloud
    region: str | None = None  # None for the profile's
    profile: str | None = None  # None for the credentials of the environment

    def __post_init__(self) -> None:
        if self.stack is None and (self.region or self.profile):
            raise StackOptionMissing("--region and --profile need --stack: the name of a stack on AWS")


def users_environment() -> dict[str, str]:
    """Return this process's variables with AWS settings, Prefect keys and notifications; call this before `main`
    removes them from the environment."""
    kept = (*_PREFECT_VARIABLES, *NOTIFICATION_VARIABLES)
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in kept}
