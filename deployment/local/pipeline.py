"""Deploys the pipeline to a running local cloud: the stack, and the blocks, work pool and deployments in Prefect."""

import os
from collections.abc import Callable, Mapping

from blocks.prefect_names import PrefectNames
from deployment.aws.deploy_stack import Clients, deploy_stack
from deployment.aws.packaging import Timeouts
from deployment.environment_variables import pipeline_settings
from deployment.local.cloud import LocalCloud
from deployment.stack_options import NOTIFICATION_VARIABLES

STACK_NAME = "sluice"
WORK_POOL = PrefectNames(STACK_NAME).pool("local")
AUTH_SECRET = "prefect-auth-string"  # noqa: S105 (the secret's name)
IMAGE = "sluice:local"  # used only if a real Docker engine runs the tasks
_REGISTRATION_SECONDS = 900  # registration usually takes a few seconds, but longer on a busy machine


def bring_up(
    cloud: LocalCloud,
    *,
    parameters: Mapping[str, str] | None = None,
    timeouts: Timeouts | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Deploy the pipeline to `cloud`, or update it, and return the stack's outputs.

    Args:
        cloud: the local cloud, which must be running.
        parameters: template parameters, in addition to the image and Prefect's URL.
        timeouts: the timeouts of the state machine and its task; if None, they follow from the stack's limits.
        on_step: called with a short description of each step when it begins.

    Raises:
        StackError: the stack could not be deployed.
        CommandFailed: the blocks or deployments could not be registered.
    """
    on_step("deploying the stack")
    outputs = deploy_stack(
        Clients.made_by(cloud.client),
        stack_name=STACK_NAME,
        parameters={"ImageUri": IMAGE, **_prefect_parameters(cloud), **(parameters or {})},
        timeouts=timeouts,
    )
    cloud.save_outputs(outputs)
    on_step("registering blocks and deployments in Prefect")
    register = ["python", "-m", "deployment.prefect_setup", "register", STACK_NAME, "--pool", "local"]
    notify = {name: os.environ[name] for name in NOTIFICATION_VARIABLES if name in os.environ}
    cloud.run(register, timeout_seconds=_REGISTRATION_SECONDS, environment=notify)
    return outputs


def _prefect_parameters(cloud: LocalCloud) -> dict[str, str]:
    """Return the template parameters for Prefect: its URL and, if it has a password, the ARN of a secret. The password
    is stored in that secret first, because tasks read it from there, as they do on AWS."""
    address = {"PrefectApiUrl": cloud.endpoints.prefect_api_url}
    auth_string = cloud.endpoints.prefect_auth_string
    if not auth_string:
        return address
    secrets = cloud.client("secretsmanager")
    try:
        secret = secrets.create_secret(Name=AUTH_SECRET, SecretString=auth_string)
    except secrets.exceptions.ResourceExistsException:
        secret = secrets.put_secret_value(SecretId=AUTH_SECRET, SecretString=auth_string)
    return address | {"PrefectAuthStringSecretArn": secret["ARN"]}


def settings_of(outputs: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables for a process outside the stack, such as a worker, from the stack's outputs."""
    return {
        **pipeline_settings(outputs),
        "PREFECT_WORKER_QUERY_SECONDS": "2",  # the default is 15, but here a user is waiting for the run to start
    }
