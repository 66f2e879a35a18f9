"""`sluice deploy`: creates or updates an environment on AWS, from the image to a smoke test.

The steps are:

    check the account -> check that Prefect responds -> check the stack's state -> build and push the image
    -> deploy the stack -> register everything in Prefect -> process one small file

Each step first checks what already exists, so after a failure the same command continues where it stopped.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors
from blocks.settings import CONTRACTS
from deployment.aws import images
from deployment.aws.access import Access, aws_access
from deployment.aws.deploy_stack import TEMPLATE, Clients, check_stack_name, delete_stack, deploy_stack, preview_stack
from deployment.aws.environments import Environment
from deployment.aws.stack import (
    NEVER_CREATED,
    Change,
    ChangesDeclined,
    Stack,
    StackUnusable,
    outputs_of,
    parameters_of,
)
from deployment.aws.task_disk import disk_warning
from deployment.aws.templates import default_parameters
from deployment.commands.deploy_show import Ask, EventLog, show_changes, show_destination
from deployment.commands.show import print_outcomes, shown_progress, shown_steps
from deployment.commands.uploads import Uploads, UploadState
from deployment.deployed_stack import AwsStack, find_aws_stack
from deployment.prefect_setup.access import PrefectAccess, prefect_access
from deployment.prefect_setup.setup import check_prefect, register_stack
from deployment.step_requirements import require_locked
from flows.refinery.check_contract import check_contracts
from flows.refinery.contract.loading import Contracts
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError, TransientError

SMOKE_TEST_FILE = "sluice-smoke-test.csv"
REPOSITORY_ONLY = ("ImageRepository", "ImageRepositoryUri")
NETWORK = ("SubnetIds", "SecurityGroupIds", "AssignPublicIp", "PrivateNetwork", "AvailabilityZones")
_CREATION_FAILED = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED")  # no update ends in these states


class AccountUnexpected(TerminalError):
    """The credentials do not belong to the account that the environment's file requires."""


class PrefectAddressMissing(TerminalError):
    """The URL of Prefect's API is not set, because the parameter PrefectApiUrl is missing."""


class NetworkInUse(TransientError):
    """The deployment would change the network while executions or tasks are using it; nothing was changed."""


class DeploymentDeclined(TerminalError):
    """The user answered a question with no. Steps that were already finished are kept."""


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """The options of one run of `sluice deploy`."""

    environment: Environment  # where to deploy, and with which parameters
    dry_run: bool  # whether to only show the changes
    skip_prefect: bool  # whether to leave Prefect unchanged
    smoke_test: bool  # whether to process one small file at the end
    smoke_test_seconds: float  # how long to wait for that file
    home: Path  # the folder that Prefect uses instead of ~/.prefect


def deploy(console: Console, options: DeployOptions, users: Mapping[str, str], ask: Ask) -> bool:
    """Deploy the environment. Return False if the smoke test's file was not published, otherwise True.

    Args:
        users: the caller's AWS variables, as returned by `stack_options.users_environment`.
        ask: asks a yes-or-no question before something is changed; if it returns False, the deployment stops.

    Raises:
        ContractInvalid: a contract that would be part of the image is invalid.
        RequirementsNotLocked: the lock file of the packages that custom steps need is out of date.
        SluiceError: any other failure, with a subclass for each cause. Finished steps are kept, and the same command
            continues with the step that failed.
    """
    environment = options.environment
    check_stack_name(environment.stack)
    if not environment.image:
        check_contracts(Contracts.load(CONTRACTS))  # no file of a dataset with an invalid contract could be processed
        require_locked()
    with aws_access(users, region=environment.region, profile=environment.profile) as access:
        return Deployment(console, options, access, ask).run()


def check_network(client: Callable[[str], Any], stack: Mapping[str, Any] | None, asked: Mapping[str, str]) -> None:
    """Check that the deployment does not change the network while it is in use.

    A running execution keeps its definition, so it keeps launching tasks in the old subnets. In addition, a subnet or
    security group cannot be deleted while a task's network interface uses it.
    docs.aws.amazon.com/step-functions/latest/apireference/API_UpdateStateMachine.html

    Args:
        client: creates a boto3 client for the service with the given name.
        stack: the stack as CloudFormation describes it; None if it does not exist.
        asked: the parameters to deploy with.

    Raises:
        NetworkInUse: the network would change while an execution or a task is running.
    """
    before, outputs = parameters_of(stack), outputs_of(stack)
    changed = [name for name in NETWORK if asked.get(name, before.get(name)) != before.get(name)]
    if not changed or "StateMachineArn" not in outputs:
        return
    machine, cluster = outputs["StateMachineArn"], outputs["ClusterArn"]
    runs = client("stepfunctions").list_executions(stateMachineArn=machine, statusFilter="RUNNING", maxResults=1)
    tasks = client("ecs").list_tasks(cluster=cluster, maxResults=1)
    if runs["executions"] or tasks["taskArns"]:
        raise NetworkInUse(
            f"{', '.join(changed)} cannot change while uploads are being processed, because executions keep the "
            f"subnets that they started with. Run sluice pause, wait until no execution of {machine} and no task is "
            "running, deploy again, then run sluice resume"
        )


def warn_of_small_disk(console: Console, contracts: Iterable[Contract], parameters: Mapping[str, str]) -> None:
    """Print a warning for each contract whose rules or steps need a larger disk than a task has."""
    for contract in contracts:
        warning = disk_warning(contract, {**default_parameters(TEMPLATE), **parameters})
        if warning:
            console.out(f"warning: {warning}")


class Deployment:
    """One run of `sluice deploy`, in the account and region that `access` names."""

    def __init__(self, console: Console, options: DeployOptions, access: Access, ask: Ask) -> None:
        self._console, self._options, self._access, self._ask = console, options, access, ask
        self._environment, self._name = options.environment, options.environment.stack
        self._clients = Clients.made_by(client_of)
        self._ecr = client_of("ecr")
        self._stack = Stack(self._clients.cloudformation, self._name, EventLog(console))

    def run(self) -> bool:
        """Deploy or, for a dry run, show what would change. Return False if the smoke test's file was not published."""
        self._check_account()
        with explaining_aws_errors("looking at what is deployed"):
            image_uri = self._given_image()
            parameters = self._show_destination()
            if not self._environment.image:
                warn_of_small_disk(self._console, Contracts.load(CONTRACTS), parameters)
            if not self._options.skip_prefect:
                check_prefect(self._prefect(parameters))
            self._make_way()
            if not self._options.dry_run:
                check_network(client_of, self._stack.find(), self._environment.parameters)
            recipe = images.Recipe(parameters.get("TaskCpuArchitecture", "X86_64"), self._environment.build_arguments)
            image_uri = image_uri or self._image(recipe)
            if self._options.dry_run:
                self._preview(image_uri)
                return True
            images.keep(self._ecr, image_uri)
        self._deploy(image_uri)
        target = find_aws_stack(self._access, self._name)
        if not self._options.skip_prefect:
            self._register(target)
        self._console.print(f"The stack {self._name} is up to date.", style="green")
        return self._smoke_test(target) if self._options.smoke_test else True

    # --- looking ---

    def _check_account(self) -> None:
        allowed = self._environment.account
        if allowed and allowed != self._access.account_id:
            raise AccountUnexpected(
                f"the credentials belong to account {self._access.account_id}, but this environment may be "
                f"deployed only to account {allowed}; is this the right profile?"
            )

    def _given_image(self) -> str | None:
        """Return the URI of the image that the environment's file or --image names; None if neither names one."""
        if not self._environment.image:
            return None
        account_id, region = self._access.account_id, self._access.region
        return images.resolve_image(
            self._ecr, self._environment.image, stack_name=self._name, account_id=account_id, region=region
        )

    def _show_destination(self) -> dict[str, str]:
        """Print the account, the region, the stack and Prefect's URL. Return the stack's parameters, with those of the
        environment's file in place of existing ones. Raise PrefectAddressMissing if they do not include
        PrefectApiUrl."""
        stack = self._stack.find()
        kept = stack if stack and stack["StackStatus"] != NEVER_CREATED else None
        parameters = parameters_of(kept) | self._environment.parameters
        if not parameters.get("PrefectApiUrl"):
            raise PrefectAddressMissing(
                "PrefectApiUrl is missing: set the URL of Prefect's API in the environment's file or with "
                "--parameter PrefectApiUrl=URL; docs/deploy.md describes three ways to get one"
            )
        facts = {
            "stack": f"{self._name} ({stack['StackStatus'] if stack else 'new'})",
            "Prefect": parameters["PrefectApiUrl"] + (" (skipped)" if self._options.skip_prefect else ""),
        }
        show_destination(self._console, self._access, facts)
        return parameters

    def _prefect(self, parameters: Mapping[str, str]) -> PrefectAccess:
        return prefect_access(parameters, api_url=self._environment.prefect_url_from_here)

    def _make_way(self) -> None:
        """Wait until any other operation on the stack has ended. If the stack's creation failed, ask whether to delete
        it, and do so. Raise StackUnusable in a dry run, and DeploymentDeclined if the answer is no."""
        status = self._stack.wait_while_busy(
            lambda busy: self._console.print(
                f"The stack {self._name} is in {busy}: waiting for that operation to end. Ctrl-C does not stop it."
            )
        )
        if status not in _CREATION_FAILED:
            return
        what = f"The stack {self._name} is in {status}: its creation failed, so it cannot be updated."
        if self._options.dry_run:
            raise StackUnusable(f"{what} Without --dry-run, you would be asked whether to delete and create it again")
        if not self._ask(f"{what} It holds no data. Delete it and create it again?"):
            raise DeploymentDeclined(f"the stack {self._name} was left in {status}")
        delete_stack(self._clients, stack_name=self._name, on_event=EventLog(self._console))

    # --- changing ---

    def _preview(self, image_uri: str) -> None:
        self._console.out(f"image  {image_uri}")
        changes = preview_stack(
            self._clients,
            stack_name=self._name,
            parameters={**self._environment.parameters, "ImageUri": image_uri},
            tags=self._environment.tags,
            retentions=self._environment.retention,
            on_upload=lambda address: self._console.out(
                f"uploaded  {address}, for CloudFormation to read; no stack uses it until you deploy"
            ),
        )
        show_changes(self._console, changes)
        self._console.print("This was a dry run: stack, image and Prefect are unchanged.", style="bold")

    def _image(self, recipe: images.Recipe) -> str:
        """Return the image's URI with its digest; build and push the image if it is not in the repository. In a dry
        run, nothing is built, and the URI contains the tag that the image would get."""
        uri = images.find_repository(self._ecr, self._name)
        if uri and (digest := self._digest(recipe)):
            self._console.out(f"The image is already in the repository: {recipe.tag}")
            return f"{uri}@{digest}"
        engine = images.find_engine()  # raises if there is none, before anything is created
        registry = images.registry_host(self._ecr, self._access.account_id)
        expected = f"{uri or f'{registry}/{images.repository_name(self._name)}'}:{recipe.tag}"
        if self._options.dry_run:
            self._console.out(f"The image would be built and pushed with {engine.name}, as {recipe.tag}.")
            return expected
        if uri is None:
            # A task cannot run an image that does not exist, so at first the stack has only the image's repository.
            self._console.print("The stack is created with only the repository for its image; the rest follows.")
            uri = self._deploy(expected, only=REPOSITORY_ONLY)["ImageRepositoryUri"]
        with shown_steps(self._console) as on_step:
            on_step(f"building the image with {engine.name}")
            images.build(engine, recipe, f"{uri}:{recipe.tag}")
            on_step(f"pushing the image to {uri}")
            images.push(engine, self._ecr, uri, recipe.tag)
        digest = self._digest(recipe)
        if digest is None:
            raise images.ImageNotPushed(
                f"{engine.name} pushed {uri}:{recipe.tag}, but the repository does not contain it"
            )
        return f"{uri}@{digest}"

    def _digest(self, recipe: images.Recipe) -> str | None:
        return images.find_digest(self._ecr, images.repository_name(self._name), {"imageTag": recipe.tag})

    def _deploy(self, image_uri: str, only: Sequence[str] | None = None) -> dict[str, str]:
        shown: list[Change] = []

        def agree(changes: Sequence[Change]) -> bool:
            shown.extend(changes)
            show_changes(self._console, changes)
            return self._ask(f"Make these changes in account {self._access.account_id}, region {self._access.region}?")

        try:
            outputs = deploy_stack(
                self._clients,
                stack_name=self._name,
                parameters={**self._environment.parameters, "ImageUri": image_uri},
                tags=self._environment.tags,
                retentions=self._environment.retention,
                on_event=EventLog(self._console),
                agree_to=agree,
                only=only,
            )
        except ChangesDeclined as error:
            raise DeploymentDeclined(str(error)) from None
        if not shown:
            show_changes(self._console, ())
        return outputs

    # --- afterwards ---

    def _register(self, target: AwsStack) -> None:
        with shown_steps(self._console) as on_step:
            on_step("registering the work pool, the blocks, the deployments and the automations in Prefect")
            prefect, home = self._prefect(target.parameters), self._options.home
            register_stack(prefect, target.stack_name, region=target.region, home=home)

    def _smoke_test(self, target: AwsStack) -> bool:
        """Upload one small file, wait for its outcome, and return whether it was published in time."""
        with tempfile.TemporaryDirectory(prefix="sluice-smoke-") as folder:
            file = Path(folder) / SMOKE_TEST_FILE
            file.write_text(f"deployed_at,stack\n{datetime.now(UTC).isoformat()},{target.stack_name}\n")
            uploads = Uploads(target)
            with explaining_aws_errors("uploading the smoke test's file"):
                followed = uploads.upload(file, f"{target.outputs['IncomingPrefix']}{SMOKE_TEST_FILE}")
        with (
            shown_progress(self._console, [followed]) as on_look,
            explaining_aws_errors("following the smoke test's file"),
        ):
            uploads.follow([followed], deadline_seconds=self._options.smoke_test_seconds, on_look=on_look)
        print_outcomes(self._console, target, [followed])
        if followed.stage is not UploadState.PUBLISHED:
            self._console.print(
                "The stack is deployed, but the smoke test's file was not published. "
                f"See: sluice status --stack {target.stack_name} --region {target.region}",
                style="red",
            )
        return followed.stage is UploadState.PUBLISHED
