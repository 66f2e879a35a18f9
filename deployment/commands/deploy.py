"""`sluice deploy`: brings an environment on AWS up to date, from the image to a file that went through it.

Every step finds out what is there already, so the same command goes on after a failure, wherever that was:

    where are we -> is Prefect there -> the stack's state -> the image -> the stack -> Prefect -> one small file
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from blocks.aws import client_of
from blocks.aws_errors import explaining_aws_errors
from deployment.aws import images
from deployment.aws.access import Access, aws_access
from deployment.aws.deploy_stack import Clients, check_stack_name, delete_stack, deploy_stack, preview_stack
from deployment.aws.environments import Environment
from deployment.aws.stack import Change, ChangesDeclined, Stack, StackParametersWrong, StackUnusable
from deployment.commands.deploy_show import EventLog, show_changes, show_place
from deployment.commands.show import ProgressTable, StepDisplay, print_outcomes
from deployment.commands.upload import CONTRACTS
from deployment.commands.uploads import Uploads, UploadState
from deployment.deployed_stack import AwsStack, find_aws_stack
from deployment.prefect_setup.access import PrefectAccess, prefect_access
from deployment.prefect_setup.setup import check_prefect, register
from flows.refinery.check_contract import check_contracts
from flows.refinery.contract.loading import Contracts
from flows.refinery.errors import TerminalError

SMOKE_TEST_FILE = "sluice-smoke-test.csv"
REPOSITORY_ONLY = ("ImageRepository", "ImageRepositoryUri")
_NEVER_WHOLE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED")  # no update leads out of these

Ask = Callable[[str], bool]


class AccountUnexpected(TerminalError):
    """The credentials are another account's than the environment's file allows."""


class DeploymentDeclined(TerminalError):
    """A question was answered with no; what was done before it stays."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a deployment was asked for.

    Attributes:
        environment: where, and with which parameters.
        dry_run: show everything, change nothing.
        skip_prefect: register nothing in Prefect.
        smoke_test: send one small file through at the end.
        smoke_test_seconds: how long that file may take.
        home: a folder for what Prefect's programs keep.
    """

    environment: Environment
    dry_run: bool
    skip_prefect: bool
    smoke_test: bool
    smoke_test_seconds: float
    home: Path


def deploy(console: Console, wishes: Wishes, users: Mapping[str, str], ask: Ask) -> bool:
    """Bring the environment up to date; return whether the smoke test's file was published (or none was wanted).

    Args:
        console: where to show it.
        wishes: what is asked for.
        users: the caller's own AWS variables (place.users_environment).
        ask: asked before anything is changed; False stops.

    Raises:
        ContractInvalid: a contract that would go into the image is wrong.
        SluiceError: one class for each cause; what was done stays, and the same command goes on from there.
    """
    environment = wishes.environment
    check_stack_name(environment.stack)
    if not environment.image:
        check_contracts(Contracts.load(CONTRACTS))  # in the image a wrong one would reject every file
    with aws_access(users, region=environment.region, profile=environment.profile) as access:
        return Deployment(console, wishes, access, ask).run()


class Deployment:
    """One run of `sluice deploy`, inside the account that it works in."""

    def __init__(self, console: Console, wishes: Wishes, access: Access, ask: Ask) -> None:
        self._console, self._wishes, self._access, self._ask = console, wishes, access, ask
        self._environment = wishes.environment
        self._clients = Clients.from_environment()
        self._ecr = client_of("ecr")
        self._stack = Stack(self._clients.cloudformation, self._environment.stack, EventLog(console))

    def run(self) -> bool:
        """Do it all."""
        self._check_account()
        self._check_image()
        with explaining_aws_errors("looking at what is there"):
            parameters = self._parameters()
            show_place(self._console, self._access, self._facts(parameters))
            if not self._wishes.skip_prefect:
                check_prefect(self._prefect(parameters))
            self._settle()
            if self._wishes.dry_run:
                self._preview()
                return True
            image_uri = self._image()
        outputs = self._deploy({"ImageUri": image_uri})
        target = find_aws_stack(self._access, self._environment.stack)
        if not self._wishes.skip_prefect:
            self._register(target, outputs)
        self._console.print(f"The stack {self._environment.stack} is up to date.", style="green", highlight=False)
        return self._smoke_test(target) if self._wishes.smoke_test else True

    # --- looking ---

    def _check_account(self) -> None:
        allowed = self._environment.account
        if allowed and allowed != self._access.account_id:
            raise AccountUnexpected(
                f"the credentials are account {self._access.account_id}'s, and this environment is deployed to "
                f"account {allowed} only: is it the right profile?"
            )

    def _check_image(self) -> None:
        if self._environment.image:
            here = (self._access.account_id, self._access.region)
            images.check_repository(self._environment.image, self._environment.stack, *here)

    def _parameters(self) -> dict[str, str]:
        """Return the parameters as they will be, as far as they are known before the template is read."""
        summary = self._stack.find()
        kept: dict[str, str] = {}
        if summary is not None and summary["StackStatus"] != "REVIEW_IN_PROGRESS":
            stack = self._clients.cloudformation.describe_stacks(StackName=summary["StackId"])["Stacks"][0]
            kept = {one["ParameterKey"]: one["ParameterValue"] for one in stack.get("Parameters", [])}
        parameters = kept | self._environment.parameters
        if not parameters.get("PrefectApiUrl"):
            raise StackParametersWrong(
                "no PrefectApiUrl: say where Prefect's API is, in the environment's file or with "
                "--parameter PrefectApiUrl=URL; docs/deploy.md names three ways to have one"
            )
        return parameters

    def _facts(self, parameters: Mapping[str, str]) -> dict[str, str]:
        summary = self._stack.find()
        return {
            "stack": f"{self._environment.stack} ({summary['StackStatus'] if summary else 'new'})",
            "Prefect": parameters["PrefectApiUrl"] + (" (skipped)" if self._wishes.skip_prefect else ""),
        }

    def _prefect(self, parameters: Mapping[str, str]) -> PrefectAccess:
        return prefect_access(parameters, api_url=self._environment.prefect_url_from_here)

    def _settle(self) -> None:
        """Wait for what others do with the stack, and clear away one that was never made."""
        name = self._environment.stack
        status = self._stack.settle(
            lambda busy: self._console.print(
                f"The stack {name} is in {busy}: another operation is under way, whose end is waited for. "
                "Ctrl-C leaves it alone."
            )
        )
        if status not in _NEVER_WHOLE:
            return
        what = f"The stack {name} is in {status}: its creation failed, and no update leads out of that."
        if self._wishes.dry_run:
            raise StackUnusable(f"{what} Without --dry-run it would be deleted and made anew, after a question")
        if not self._ask(f"{what} It holds no data. Delete it and begin anew?"):
            raise DeploymentDeclined(f"the stack {name} was left in {status}")
        delete_stack(self._clients, stack_name=name, on_event=EventLog(self._console))

    # --- changing ---

    def _preview(self) -> None:
        uri = self._expected_image()
        self._console.print(f"image  {uri}", highlight=False, markup=False, soft_wrap=True)
        changes = preview_stack(
            self._clients,
            stack_name=self._environment.stack,
            parameters={**self._environment.parameters, "ImageUri": uri},
            on_upload=self._show_upload,
        )
        if changes:
            show_changes(self._console, changes)
        else:
            self._console.print("The stack is up to date: nothing to change.")
        self._console.print("A dry run: the stack, the image and Prefect are as they were.", style="bold")

    def _show_upload(self, address: str) -> None:
        self._console.print(
            f"uploaded  {address}, for CloudFormation to read; it is named by its content and used by no stack",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def _expected_image(self) -> str:
        """Return the image as far as it is known without building or pushing anything."""
        if self._environment.image:
            return images.check_pushed(self._ecr, self._environment.image, self._access.account_id, self._access.region)
        tag = self._recipe().tag
        repository = images.repository_name(self._environment.stack)
        uri = images.find_repository(self._ecr, self._environment.stack)
        digest = images.find_digest(self._ecr, repository, tag) if uri else None
        if uri and digest:
            return f"{uri}@{digest}"
        engine = images.find_engine()
        self._console.print(f"The image would be built and pushed with {engine.name}, as {tag}.", highlight=False)
        host = f"{self._access.account_id}.dkr.ecr.{self._access.region}.amazonaws.com"
        return f"{uri or f'{host}/{repository}'}:{tag}"

    def _image(self) -> str:
        """Return the image's address by digest, after building and pushing it where it is not there yet."""
        if self._environment.image:
            return self._expected_image()
        tag, repository = self._recipe().tag, images.repository_name(self._environment.stack)
        uri = images.find_repository(self._ecr, self._environment.stack)
        digest = images.find_digest(self._ecr, repository, tag)
        if uri and digest:
            self._console.print(f"The image is there already: {tag}", highlight=False)
            return f"{uri}@{digest}"
        engine = images.find_engine()  # before anything is made
        if uri is None:
            uri = self._make_repository(tag)
        self._build_and_push(engine, uri, tag)
        digest = images.find_digest(self._ecr, repository, tag)
        if digest is None:
            raise images.ImageNotPushed(f"{engine.name} pushed {uri}:{tag}, and the repository does not have it")
        return f"{uri}@{digest}"

    def _make_repository(self, tag: str) -> str:
        """Make the stack with nothing in it but the image's repository: a task cannot run an image that is nowhere."""
        self._console.print("The stack begins with the repository that its image is pushed to; the rest follows.")
        host = f"{self._access.account_id}.dkr.ecr.{self._access.region}.amazonaws.com"
        outputs = self._deploy(
            {"ImageUri": f"{host}/{images.repository_name(self._environment.stack)}:{tag}"}, only=REPOSITORY_ONLY
        )
        return outputs["ImageRepositoryUri"]

    def _build_and_push(self, engine: images.Engine, uri: str, tag: str) -> None:
        with StepDisplay(self._console).shown() as on_step:
            on_step(f"building the image with {engine.name}")
            images.build(engine, self._recipe(), f"{uri}:{tag}")
            on_step(f"pushing the image to {uri}")
            images.push(engine, self._ecr, uri, tag)

    def _recipe(self) -> images.Recipe:
        architecture = self._environment.parameters.get("TaskCpuArchitecture", "X86_64")
        return images.Recipe(architecture, self._environment.build_arguments)

    def _deploy(self, more: Mapping[str, str], only: Sequence[str] | None = None) -> dict[str, str]:
        asked: list[Change] = []

        def agree(changes: Sequence[Change]) -> bool:
            asked.extend(changes)
            show_changes(self._console, changes)
            return self._ask(f"Make these changes in account {self._access.account_id}, region {self._access.region}?")

        try:
            outputs = deploy_stack(
                self._clients,
                stack_name=self._environment.stack,
                parameters={**self._environment.parameters, **more},
                on_event=EventLog(self._console),
                agree_to=agree,
                only=only,
            )
        except ChangesDeclined as error:
            raise DeploymentDeclined(str(error)) from None
        if not asked:
            self._console.print("The stack is up to date: nothing to change.")
        return outputs

    # --- afterwards ---

    def _register(self, target: AwsStack, outputs: Mapping[str, str]) -> None:
        with StepDisplay(self._console).shown() as on_step:
            register(
                self._prefect(target.parameters),
                outputs,
                stack_name=target.stack_name,
                region=target.region,
                home=self._wishes.home,
                on_step=on_step,
            )

    def _smoke_test(self, target: AwsStack) -> bool:
        """Send one small file through; return whether it was published."""
        with tempfile.TemporaryDirectory(prefix="sluice-smoke-") as folder:
            file = Path(folder) / SMOKE_TEST_FILE
            file.write_text(f"deployed_at,stack\n{datetime.now(UTC).isoformat()},{target.stack_name}\n")
            uploads = Uploads(target)
            with explaining_aws_errors("uploading the smoke test's file"):
                followed = uploads.upload(file, f"{target.outputs['IncomingPrefix']}{SMOKE_TEST_FILE}")
        with (
            ProgressTable(self._console, [followed]).shown() as on_look,
            explaining_aws_errors("following the smoke test's file"),
        ):
            uploads.follow([followed], deadline_seconds=self._wishes.smoke_test_seconds, on_look=on_look)
        print_outcomes(self._console, target, [followed])
        if followed.stage is not UploadState.PUBLISHED:
            self._console.print(
                "The stack stands, and the smoke test's file was not published. "
                f"Look: sluice status --stack {target.stack_name} --region {target.region}",
                style="red",
            )
        return followed.stage is UploadState.PUBLISHED
