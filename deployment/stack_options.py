"""The options --stack, --region and --profile, which select the stack that a command uses.

`--stack NAME` selects a stack on AWS; `--region` and `--profile` select the region and the account. Without --stack, a
command uses the local cloud.
"""

import os
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from flows.refinery.errors import TerminalError

# The help shows no default values, because the help texts describe them.
option, argument = partial(typer.Option, show_default=False), partial(typer.Argument, show_default=False)

StackOption = Annotated[str | None, option("--stack", help="A stack on AWS; by default, the local cloud is used.")]
RegionOption = Annotated[
    str | None, option("--region", help="The AWS region; by default, that of the environment or the profile.")
]
ProfileOption = Annotated[
    str | None, option("--profile", help="The AWS profile; by default, the usual AWS credentials are used.")
]

_PREFECT_VARIABLES = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")  # without the URL, which is a stack parameter
NOTIFICATION_VARIABLES = ("SLUICE_NOTIFY_URL", "SLUICE_NOTIFY_QUARANTINED_PERCENT")


class StackOptionMissing(TerminalError):
    """--region or --profile was given without --stack."""


@dataclass(frozen=True, slots=True)
class StackSelection:
    """The stack that a command uses."""

    stack: str | None = None  # the stack's name on AWS; None for the local cloud
    region: str | None = None  # None for the region of the environment or the profile
    profile: str | None = None  # None for the credentials that boto3 finds by itself

    def __post_init__(self) -> None:
        if self.stack is None and (self.region or self.profile):
            raise StackOptionMissing("--region and --profile need --stack: the name of a stack on AWS")


def users_environment() -> dict[str, str]:
    """Return this process's environment variables for AWS, Prefect's credentials and notifications. Must be called
    before `main` removes those for AWS and Prefect."""
    kept = (*_PREFECT_VARIABLES, *NOTIFICATION_VARIABLES)
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in kept}
