"""`sluice destroy`: deletes a stack. Uploads and published data are kept unless --delete-data is given and
confirmed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from botocore.exceptions import ClientError
from rich.console import Console

from blocks.aws import client_of
from blocks.aws_errors import AwsCallInvalid, aws_error_code, explaining_aws_errors
from blocks.pause import Pause
from deployment.aws.access import aws_access
from deployment.aws.deploy_stack import Clients, check_stack_name, delete_stack
from deployment.aws.environments import Environment
from deployment.aws.running_drains import end_drains
from deployment.aws.running_tasks import DEADLINE_SECONDS, end_tasks
from deployment.aws.stack import Stack, StackFailed, outputs_of, parameters_of
from deployment.commands.deploy_show import Ask, EventLog, show_destination
from deployment.prefect_setup.access import prefect_access
from deployment.prefect_setup.setup import check_prefect, remove_stack
from flows.refinery.errors import SluiceError, TerminalError
from flows.refinery.words import counted


class DestructionDeclined(TerminalError):
    """The user answered a question with no, or did not type a bucket's name; nothing was deleted."""


def destroy(
    console: Console,
    environment: Environment,
    users: Mapping[str, str],
    *,
    delete_data: bool,
    ask: Ask,
    type_in: Callable[[str], str],
    home: Path,
) -> None:
    """Delete the stack and, if `delete_data` is set, its buckets with all their contents.

    Args:
        users: the caller's AWS variables, as returned by `stack_options.users_environment`.
        delete_data: whether to also delete uploads and published data, which cannot be undone.
        ask: asks a yes-or-no question before anything is deleted.
        type_in: asks the user to type the name of a bucket, and returns the answer.
        home: the folder that Prefect uses instead of ~/.prefect.

    Raises:
        DestructionDeclined: the user did not confirm; nothing was deleted.
        TasksStillRunning: tasks did not stop in time. The stack was not deleted, and remains paused.
        StackFailed, StackBusy, BucketNotEmptied: the stack or a bucket could not be deleted.
    """
    check_stack_name(environment.stack)
    with aws_access(users, region=environment.region, profile=environment.profile) as access:
        clients = Clients.made_by(client_of)
        log = EventLog(console)
        stack = Stack(clients.cloudformation, environment.stack, log)
        with explaining_aws_errors(f"looking for the stack {environment.stack}"):
            found = stack.find()
            state = found["StackStatus"] if found else "does not exist"
            show_destination(console, access, {"stack": f"{environment.stack} ({state})"})
            if found is None:
                console.print("There is no such stack: nothing to delete.")
                return
            buckets, outputs = stack.buckets(), outputs_of(found)
        _agree(console, environment.stack, buckets, delete_data=delete_data, ask=ask, type_in=type_in)
        left = delete_without_tasks(
            lambda: delete_stack(
                clients,
                stack_name=environment.stack,
                delete_data=delete_data,
                on_event=log,
                on_emptied=lambda bucket, count: console.out(
                    f"          {count:,} object versions deleted in {bucket}"
                ),
            ),
            lambda: _end_work(console, outputs),
        )
        if outputs.get("PublishedBucket") in left:
            with _bucket_may_be_gone():  # otherwise a stack to which this bucket is copied would be paused
                Pause(outputs["PublishedBucket"]).end()
        _remove_from_prefect(console, environment, parameters_of(found), region=access.region, home=home)
    _show_what_is_left(console, environment.stack, left, outputs, buckets)


def delete_without_tasks(delete: Callable[[], tuple[str, ...]], end_work: Callable[[], int]) -> tuple[str, ...]:
    """Stop a stack's drains and tasks, then delete the stack, because a cluster with tasks cannot be deleted. Return
    the names of the buckets that were kept.

    Args:
        delete: deletes the stack, and returns the names of the buckets that were kept.
        end_work: stops the stack's drains and tasks, and returns the number of tasks that it stopped.
    """
    end_work()
    try:
        return delete()
    except StackFailed:
        # Someone may have started a task manually.
        if not end_work():
            raise
    return delete()


def _agree(
    console: Console,
    name: str,
    buckets: tuple[str, ...],
    *,
    delete_data: bool,
    ask: Ask,
    type_in: Callable[[str], str],
) -> None:
    for bucket in buckets:
        fate = "deleted with everything in it" if delete_data else "kept"
        console.out(f"bucket {bucket}: {fate}")
    if not ask(f"Delete the stack {name}?"):
        raise DestructionDeclined(f"the stack {name} was left as it is")
    for bucket in buckets if delete_data else ():
        if type_in(f"Type the name of the bucket to delete it and everything in it ({bucket})").strip() != bucket:
            raise DestructionDeclined(f"the name of {bucket} was not typed; nothing was deleted")


def _end_work(console: Console, outputs: Mapping[str, str]) -> int:
    """Pause the stack, stop its drains, then its tasks; return the number of stopped tasks.

    This order ensures that nothing new is launched: during a pause, the Lambda starts no drain, scheduled drains launch
    no tasks, and the tasks of a running drain are stopped together with the drain or after it.
    """

    def show_drains(count: int) -> None:
        console.print(f"Stopping {counted(count, 'running drain')}.")

    def show_tasks(count: int) -> None:
        console.print(
            f"Stopping {counted(count, 'running task')}, which may take "
            f"{DEADLINE_SECONDS / 60:.0f} minutes; the uploads that they are processing return to the queue."
        )

    reason, tasks = "sluice destroy", 0
    if "PublishedBucket" in outputs:
        with _bucket_may_be_gone():
            Pause(outputs["PublishedBucket"]).begin()
    with explaining_aws_errors("stopping the stack's drains and tasks"):
        while True:
            drains = end_drains(client_of("stepfunctions"), outputs, show_drains, reason=reason)
            if cluster := outputs.get("ClusterArn"):  # a stack whose creation failed may have none
                tasks += end_tasks(client_of("ecs"), cluster, show_tasks, reason=reason)
            if not drains:  # a Lambda that looked for a pause just before it began may have started one more drain
                return tasks


@contextmanager
def _bucket_may_be_gone() -> Iterator[None]:
    """Ignore that the published bucket does not exist, because someone may have deleted it before the stack."""
    try:
        yield
    except AwsCallInvalid as error:
        if not isinstance(error.__cause__, ClientError) or aws_error_code(error.__cause__) != "NoSuchBucket":
            raise


def _remove_from_prefect(
    console: Console, environment: Environment, parameters: Mapping[str, str], *, region: str, home: Path
) -> None:
    """Remove what `sluice deploy` registered in Prefect. If that fails, only print how to do it later, because the
    stack has already been deleted."""
    if not parameters.get("PrefectApiUrl"):
        return
    try:
        prefect = prefect_access(parameters, api_url=environment.prefect_url_from_here)
        check_prefect(prefect)
        remove_stack(prefect, environment.stack, region=region, home=home)
    except SluiceError as error:
        console.out(
            f"The stack's deployments, blocks, work pool, limits and automations remain in Prefect: {error}\nRemove "
            f"them with: PREFECT_API_URL=... python -m deployment.prefect_setup remove {environment.stack}"
        )


def _show_what_is_left(
    console: Console, name: str, left: tuple[str, ...], outputs: Mapping[str, str], buckets: tuple[str, ...]
) -> None:
    console.print(f"The stack {name} was deleted.", style="green")
    for bucket in left:
        console.out(f"kept: s3://{bucket}")
    landing = outputs.get("LandingBucket")
    if landing and landing not in buckets:
        console.out(f"not part of the stack, and unchanged: s3://{landing}")
    console.print("Also kept: the bucket sluice-artifacts-ACCOUNT-REGION, which stacks share, and the runs in Prefect.")
