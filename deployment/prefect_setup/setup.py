"""Checks the connection to a Prefect API, and registers or removes a stack there.

Registration and removal run in a separate process, because Prefect reads its URL and key from the environment when it
is imported.
"""

import os
from pathlib import Path

import httpx

from deployment.prefect_setup.access import PrefectAccess
from deployment.project_commands import CommandFailed, run_command
from flows.refinery.errors import TransientError

_REQUEST_SECONDS = 15
_COMMAND_SECONDS = 900


class PrefectUnreachable(TransientError):
    """Prefect's API does not respond, or the URL is not that of a Prefect API."""


class PrefectUnauthorised(TransientError):
    """Prefect's API rejects the key or password, or requires one although none is configured."""


class PrefectSetupFailed(TransientError):
    """The stack could not be registered in Prefect or removed from it; the message contains the end of the command's
    output."""


def check_prefect(access: PrefectAccess) -> None:
    """Check the connection with a request that requires authorization. Raise PrefectUnreachable or PrefectUnauthorised
    if it fails; the message explains what to do."""
    url = f"{access.api_url.rstrip('/')}/work_pools/filter"
    try:
        answer = httpx.post(url, json={"limit": 1}, headers=access.headers, timeout=_REQUEST_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise PrefectUnreachable(
            f"Prefect's API {access.api_url} cannot be reached from this machine ({type(error).__name__}). Is the URL "
            "correct, and is the server running? If only tasks can reach the server, use --prefect-url with a URL that "
            "this machine can reach, such as that of a tunnel; --skip-prefect deploys without registering anything"
        ) from error
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        problem = "rejects the stack's key" if access.headers else "needs a key, but the stack has none"
        raise PrefectUnauthorised(
            f"Prefect's API {access.api_url} {problem} (HTTP {answer.status_code}). Store the key in Secrets Manager, "
            "and set PrefectApiKeySecretArn (Prefect Cloud) or PrefectAuthStringSecretArn (user:password) to its ARN"
        )
    if answer.status_code != httpx.codes.OK:
        raise PrefectUnreachable(
            f"{access.api_url} responds with HTTP {answer.status_code}, unlike Prefect's API, whose URL ends in /api "
            "or, on Prefect Cloud, in /workspaces/ID"
        )


def register_stack(access: PrefectAccess, stack_name: str, *, region: str, home: Path) -> None:
    """Register a deployed stack in Prefect, with a work pool for ECS tasks. Raise PrefectSetupFailed if that fails; it
    is safe to try again.

    Args:
        home: the folder that Prefect uses instead of ~/.prefect.
    """
    try:
        _run(["register", stack_name, "--pool", "ecs"], access, region=region, home=home)
    except PrefectSetupFailed as error:
        raise PrefectSetupFailed(
            f"{error}\nThe stack {stack_name} is deployed and works, but Prefect shows its runs only after this step "
            "has succeeded. Run the same command again: it continues with this step"
        ) from error


def remove_stack(access: PrefectAccess, stack_name: str, *, region: str, home: Path) -> None:
    """Remove everything that `register_stack` created in Prefect. The arguments and errors are those of
    `register_stack`."""
    _run(["remove", stack_name], access, region=region, home=home)


def _run(arguments: list[str], access: PrefectAccess, *, region: str, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        **access.environment,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "AWS_REGION": region,
    }
    try:
        run_command(["python", "-m", "deployment.prefect_setup", *arguments], environment, _COMMAND_SECONDS)
    except CommandFailed as error:
        raise PrefectSetupFailed(str(error)) from error
