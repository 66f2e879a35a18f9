"""What a deployment does in Prefect: asks whether its API is there, then registers all that it is to know."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from deployment.environment_variables import pipeline_settings
from deployment.prefect_setup.access import PrefectAccess
from deployment.prefect_setup.work_pools import ECS_POOL
from deployment.project_commands import CommandFailed, ProjectCommand
from flows.refinery.errors import TransientError

CODE_IN_IMAGE = "/app"
_ASK_SECONDS = 15
_REGISTRATION_SECONDS = 900


class PrefectUnreachable(TransientError):
    """Prefect's API does not answer, or what answers is no Prefect API."""


class PrefectUnauthorised(TransientError):
    """Prefect's API refuses the key or the password, or was given none."""


class PrefectStepFailed(TransientError):
    """Blocks, pool, deployments or automations could not be registered; the stack stands and is left as it is."""


def check_prefect(access: PrefectAccess) -> None:
    """Ask the API something that needs permission.

    Raises:
        PrefectUnreachable, PrefectUnauthorised: with what to do.
    """
    url = f"{access.api_url.rstrip('/')}/work_pools/filter"
    try:
        answer = httpx.post(url, json={"limit": 1}, headers=access.headers, timeout=_ASK_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise PrefectUnreachable(
            f"Prefect's API {access.api_url} does not answer from here ({type(error).__name__}). Is it the right "
            "address, and is the server running? A server that only tasks can reach is named with --prefect-url as "
            "this machine reaches it (a tunnel); --skip-prefect deploys without registering anything there"
        ) from error
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        given = "refuses the key that it was given" if access.headers else "wants a key, and the stack has none"
        raise PrefectUnauthorised(
            f"Prefect's API {access.api_url} {given} (HTTP {answer.status_code}). Keep the key in Secrets Manager and "
            "name the secret in PrefectApiKeySecretArn (Prefect Cloud) or PrefectAuthStringSecretArn (user:password)"
        )
    if answer.status_code != httpx.codes.OK:
        raise PrefectUnreachable(
            f"{access.api_url} answers with HTTP {answer.status_code} and not as Prefect's API does; its address ends "
            "in /api, or in /workspaces/ID on Prefect Cloud"
        )


def register(
    access: PrefectAccess,
    outputs: Mapping[str, str],
    *,
    stack_name: str,
    region: str,
    home: Path,
    on_step: Callable[[str], None],
) -> None:
    """Register everything that Prefect is to know of the stack.

    Args:
        access: the way to Prefect's API.
        outputs: the stack's.
        stack_name: its name.
        region: its region.
        home: Prefect's own folder, so that nobody's ~/.prefect is read or written.
        on_step: told what is being done.

    Raises:
        PrefectStepFailed: with the end of what the step that failed said.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        **access.environment,
        **pipeline_settings(outputs),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_CLI_PROMPT": "false",
        "AWS_REGION": region,
        "SLUICE_WORK_POOL": ECS_POOL,
        "SLUICE_RECONCILE_ROLE_ARN": outputs["ReconcileRoleArn"],
        "SLUICE_CODE_DIRECTORY": CODE_IN_IMAGE,
    }
    home.mkdir(parents=True, exist_ok=True)
    on_step("registering the work pool, the blocks, the deployments and the automations in Prefect")
    command = ["python", "-m", "deployment.prefect_setup.registration", ECS_POOL, "--stack", stack_name]
    try:
        with ProjectCommand(command, environment) as running:
            running.finish(_REGISTRATION_SECONDS)
    except CommandFailed as error:
        raise PrefectStepFailed(
            f"{error}\nThe stack {stack_name} is deployed and works; what it does shows in Prefect once "
            "this step went through. Run the same command again: it goes on here"
        ) from error
