"""Creates, updates and deletes a CloudFormation stack. Every creation and update uses a change set.

For the states of a stack, see docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from blocks.aws_errors import aws_error_code
from flows.refinery.errors import TerminalError

NEVER_CREATED = "REVIEW_IN_PROGRESS"  # the stack has change sets, but none was executed
_BUSY = "_IN_PROGRESS"
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 5.0
_PAUSE_FOR_ANOTHERS_SECONDS = 2.0
_LONGEST_WAIT_SECONDS = 3_600.0  # for an operation that someone else started
_CHANGE_SET_WAIT = {"Delay": 1, "MaxAttempts": 600}  # the delay is in seconds
_MAX_REASONS = 5  # the first failure is the cause; most later failures are cancellations
_SUCCEEDED = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"})
_UPDATABLE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"})
_ADVICE = {
    "ROLLBACK_COMPLETE": "its creation failed and was rolled back; delete it (sluice destroy), then deploy again",
    "ROLLBACK_FAILED": "its creation failed and so did the rollback; delete it (sluice destroy), then deploy again",
    "CREATE_FAILED": "its creation failed; delete it (sluice destroy), then deploy again",
    "DELETE_FAILED": "resources could not be deleted; fix the cause, which its events name, then run sluice destroy",
    "UPDATE_ROLLBACK_FAILED": "an update could not be rolled back; continue the rollback in the CloudFormation console",
}
# CloudFormation validates some values before it starts. If it finds errors, its message refers to this API call.
_SEE_EVENTS = "DescribeEvents"
_REFUSAL = "ValidationError"  # CloudFormation's code for a template, parameter or stack name that it rejects
# CloudFormation has no error code for "nothing to change"; the AWS CLI also looks for these words.
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed")  # plain: as CloudFormation words it


@dataclass(frozen=True, slots=True)
class StackEvent:
    """A CloudFormation event, which reports one step of an operation on a stack."""

    resource: str  # the logical ID in the template, or the stack's name
    resource_type: str  # such as AWS::SQS::Queue
    status: str  # such as CREATE_IN_PROGRESS
    reason: str  # CloudFormation's ResourceStatusReason; "" if there is none


class StackError(TerminalError):
    """Base class of the errors that can occur when a stack is deployed or deleted."""


class StackBusy(StackError):
    """Another operation on the stack is in progress."""


class StackUnusable(StackError):
    """The stack is in a state in which it cannot be updated, such as ROLLBACK_COMPLETE."""


class ChangesRefused(StackError):
    """No change set could be created, for example because the template or a parameter's name or value is invalid."""


class ChangesDeclined(StackError):
    """The user was shown the changes, and did not confirm them."""


class StackFailed(StackError):
    """Some of the stack's resources could not be created, changed or deleted. After a failed creation or update,
    CloudFormation rolls back.

    Attributes:
        status: the final state of the stack.
        failures: the events that report the failures, oldest first.
    """

    def __init__(self, name: str, status: str, failures: Sequence[StackEvent]) -> None:
        self.status, self.failures = status, tuple(failures)
        reasons = [f"{one.resource} ({one.resource_type}): {one.reason}" for one in failures[:_MAX_REASONS]]
        super().__init__(f"the stack {name} ended in {status}: {' | '.join(reasons) or 'see its events'}")


@dataclass(frozen=True, slots=True)
class Change:
    """One change that a change set would make."""

    action: str  # Add, Modify, Remove or Import
    resource: str  # the logical ID in the template
    resource_type: str  # such as AWS::SQS::Queue
    replaces: bool  # whether a new resource is created and the old one deleted
    may_replace: bool = False  # whether CloudFormation decides only during the update if the resource is replaced
    what: tuple[str, ...] = ()  # the changed properties that CloudFormation reports


Agree = Callable[[Sequence[Change]], bool]


class Stack:
    """Creates, updates and deletes the stack with the given name.

    Args:
        cloudformation: a boto3 client for CloudFormation.
        on_event: called for every event of an operation as it occurs.
    """

    def __init__(self, cloudformation: Any, name: str, on_event: Callable[[StackEvent], None]) -> None:
        self._cloudformation = cloudformation
        self._name = name
        self._on_event = on_event

    def find(self) -> dict[str, Any] | None:
        """Return the stack as CloudFormation describes it, or None if it does not exist."""
        return find_stack(self._cloudformation, self._name)

    def apply(
        self,
        template: Mapping[str, str],
        parameters: Mapping[str, str],
        agree_to: Agree,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Create or update the stack. If nothing has to change, do nothing.

        Args:
            template: the keyword argument TemplateBody or TemplateURL for CloudFormation's calls.
            parameters: the parameters' values. A parameter that is omitted keeps its value in the stack or, in a new
                stack, gets its default.
            agree_to: called with the changes before they are made; if it returns False, nothing is changed.
            tags: the tags of the stack and its resources; if None, existing tags are kept.

        Raises:
            StackError: the stack could not be created or updated, with a subclass for each cause.
        """
        existing = self._updatable()
        stack_id, change_set_id = self._create_change_set(template, parameters, existing, tags)
        agreed = False
        try:
            changes = self._changes(change_set_id)
            agreed = bool(changes) and agree_to(changes)
        finally:
            if not agreed:  # also after Ctrl-C at the question; leave neither a change set nor an empty stack behind
                self._cloudformation.delete_change_set(ChangeSetName=change_set_id)
                if existing is None:
                    self._cloudformation.delete_stack(StackName=stack_id)
        if agreed:
            self._run(stack_id, lambda: self._cloudformation.execute_change_set(ChangeSetName=change_set_id))
        elif changes:
            raise ChangesDeclined(f"the stack {self._name} was left as it is")

    def wait_while_busy(
        self, on_wait: Callable[[str], None], *, deadline_seconds: float = _LONGEST_WAIT_SECONDS
    ) -> str:
        """Wait until no operation is in progress, and return the stack's state, or NEVER_CREATED if there is no stack.

        Args:
            on_wait: called once, with the stack's state, if an operation is in progress.
            deadline_seconds: how long to wait.

        Raises:
            StackBusy: the operation did not end in time.
        """
        deadline = time.monotonic() + deadline_seconds
        for attempt, pause in enumerate(_pauses(_PAUSE_FOR_ANOTHERS_SECONDS)):
            status = str((self.find() or {"StackStatus": NEVER_CREATED})["StackStatus"])
            if status == NEVER_CREATED or not status.endswith(_BUSY):
                break
            if time.monotonic() > deadline:
                raise StackBusy(f"the stack {self._name} has been in {status} for {deadline_seconds / 60:.0f} minutes")
            if attempt == 0:
                on_wait(status)
            time.sleep(pause)
        return status

    def delete(self, stack: Mapping[str, Any]) -> None:
        """Delete the stack; the argument is the result of `find`. Raise StackFailed if resources could not be deleted,
        and StackBusy if another operation is in progress."""
        self.refuse_busy(stack)
        stack_id = str(stack["StackId"])
        self._run(stack_id, lambda: self._cloudformation.delete_stack(StackName=stack_id))

    def refuse_busy(self, stack: Mapping[str, Any]) -> None:
        """Raise StackBusy if another operation is in progress, because the stack cannot be deleted then."""
        status = str(stack["StackStatus"])
        if status.endswith(_BUSY) and status != NEVER_CREATED:
            raise StackBusy(f"the stack {self._name} is in {status}; wait until that operation ends, then delete it")

    def buckets(self) -> tuple[str, ...]:
        """Return the names of the buckets that the stack created."""
        pages = self._cloudformation.get_paginator("list_stack_resources").paginate(StackName=self._name)
        resources = (resource for page in pages for resource in page["StackResourceSummaries"])
        return tuple(
            resource["PhysicalResourceId"]
            for resource in resources
            if resource["ResourceType"] == "AWS::S3::Bucket" and resource.get("PhysicalResourceId")
        )

    def _updatable(self) -> dict[str, Any] | None:
        """Return the stack if it can be updated, or None if it must be created. Raise StackBusy or StackUnusable if it
        exists but cannot be updated."""
        stack = self.find()
        if stack is None or stack["StackStatus"] == NEVER_CREATED:
            return None
        status = stack["StackStatus"]
        if status.endswith(_BUSY):
            raise StackBusy(f"the stack {self._name} is in {status}; wait until that operation ends, then deploy again")
        if status not in _UPDATABLE:
            raise StackUnusable(f"the stack {self._name} is in {status}: {_ADVICE.get(status, 'see its events')}")
        return stack

    def _create_change_set(
        self,
        template: Mapping[str, str],
        given: Mapping[str, str],
        existing: Mapping[str, Any] | None,
        tags: Mapping[str, str] | None,
    ) -> tuple[str, str]:
        """Create a change set, and return the IDs of the stack and of the change set."""
        tagged = [{"Key": name, "Value": value} for name, value in sorted((tags or {}).items())]
        try:
            summary = self._cloudformation.get_template_summary(**template)
            declared = {parameter["ParameterKey"] for parameter in summary.get("Parameters", [])}
            if unknown := sorted(set(given) - declared):
                raise ChangesRefused(f"the template does not have these parameters: {', '.join(unknown)}")
            kept = set(parameters_of(existing)) & declared - set(given)
            answer = self._cloudformation.create_change_set(
                StackName=self._name,
                ChangeSetName=f"sluice-{uuid.uuid4().hex[:12]}",
                ChangeSetType="UPDATE" if existing else "CREATE",
                Parameters=[
                    *({"ParameterKey": name, "ParameterValue": value} for name, value in sorted(given.items())),
                    *({"ParameterKey": name, "UsePreviousValue": True} for name in sorted(kept)),
                ],
                Capabilities=["CAPABILITY_IAM"],
                **({} if tags is None else {"Tags": tagged}),
                **template,
            )
        except ClientError as error:
            if aws_error_code(error) != _REFUSAL:
                raise
            message = error.response["Error"].get("Message", "")
            raise ChangesRefused(f"CloudFormation rejected the changes to {self._name}: {message}") from error
        return str(answer["StackId"]), str(answer["Id"])

    def _changes(self, change_set_id: str) -> list[Change]:
        """Wait until the change set is complete, and return its changes, or an empty list if nothing would change."""
        waiter = self._cloudformation.get_waiter("change_set_create_complete")
        try:
            waiter.wait(ChangeSetName=change_set_id, WaiterConfig=_CHANGE_SET_WAIT)
        except WaiterError as error:
            if error.last_response.get("Status") != "FAILED":
                raise
            reason = str(error.last_response.get("StatusReason", ""))
            if any(words in reason for words in _NO_CHANGES):
                return []
            if _SEE_EVENTS in reason:
                errors = self._validation_errors(ChangeSetName=change_set_id)
                reason = " | ".join(f"{one.resource}: {one.reason}" for one in errors) or reason
            raise ChangesRefused(f"CloudFormation rejected the changes to {self._name}: {reason}") from error
        pages = self._cloudformation.get_paginator("describe_change_set").paginate(ChangeSetName=change_set_id)
        return [_change(change["ResourceChange"]) for page in pages for change in page["Changes"]]

    def _run(self, stack_id: str, begin: Callable[[], object]) -> None:
        """Begin an operation, and report its events until it ends. boto3's waiters are not used, because they would
        report nothing for minutes. Raise StackFailed, with the resources that failed, if the operation fails."""
        newest = next(self._events(stack_id), {}).get("EventId")
        failures: list[StackEvent] = []
        begin()
        begun = False  # until the operation has begun, the state is that of the previous operation
        for pause in _pauses():
            stack = self._cloudformation.describe_stacks(StackName=stack_id)["Stacks"][0]
            status = str(stack["StackStatus"])  # read before the events, so that no event is missed
            new = list(takewhile(lambda event: event["EventId"] != newest, self._events(stack_id)))  # noqa: B023 (used immediately)
            for event in reversed(new):
                reason = event.get("ResourceStatusReason", "")
                step = StackEvent(event["LogicalResourceId"], event["ResourceType"], event["ResourceStatus"], reason)
                self._on_event(step)
                failures += [step] if step.status.endswith("_FAILED") else []
            newest = new[0]["EventId"] if new else newest
            begun = begun or bool(new)
            if begun and not status.endswith(_BUSY):
                break
            time.sleep(pause)
        if status in _SUCCEEDED:
            return
        if any(_SEE_EVENTS in failure.reason for failure in failures):
            failures = self._validation_errors(StackName=stack_id) or failures
        raise StackFailed(self._name, status, failures)

    def _validation_errors(self, **operation: str) -> list[StackEvent]:
        """Return the errors that CloudFormation found before it changed anything, such as a name that is already in use
        or an invalid value."""
        try:
            events = self._cloudformation.describe_events(**operation)["OperationEvents"]
        except ClientError:
            return []  # without this permission, only the failures in the stack's events can be reported
        errors = [event for event in events if event.get("EventType") == "VALIDATION_ERROR"]
        return [
            StackEvent(
                event.get("LogicalResourceId", ""),
                event.get("ResourceType", ""),
                "VALIDATION_FAILED",
                f"{event.get('ValidationStatusReason', '')} ({event.get('ValidationName', '')})",
            )
            for event in errors
            if event["OperationId"] == errors[0]["OperationId"]
        ]

    def _events(self, stack_id: str) -> Iterator[dict[str, Any]]:
        """Yield the stack's events, newest first."""
        for page in self._cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id):
            yield from page["StackEvents"]


def find_stack(cloudformation: Any, name: str) -> dict[str, Any] | None:
    """Return the stack with this name as CloudFormation describes it, or None if it does not exist.

    The stack is requested by name, because listing all stacks of a large account is throttled. If it does not exist,
    the call fails with a ValidationError:
    docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStacks.html
    """
    try:
        stack: dict[str, Any] = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if aws_error_code(error) != _REFUSAL:
            raise
        return None
    return stack


def outputs_of(stack: Mapping[str, Any] | None) -> dict[str, str]:
    """Return a stack's outputs by name; `stack` is the result of `find_stack`. If it is None, there are no outputs."""
    return {output["OutputKey"]: output["OutputValue"] for output in (stack or {}).get("Outputs", [])}


def parameters_of(stack: Mapping[str, Any] | None) -> dict[str, str]:
    """Return a stack's parameter values by name; `stack` is the result of `find_stack`. If it is None, there are no
    parameters."""
    return {one["ParameterKey"]: one["ParameterValue"] for one in (stack or {}).get("Parameters", [])}


def _pauses(pause: float = _FIRST_PAUSE_SECONDS) -> Iterator[float]:
    """Yield pauses in seconds, which grow from `pause` to five seconds: short at first, so that the end of a short
    operation is noticed soon, and long later, because CloudFormation limits the rate of calls."""
    while True:
        yield pause
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _change(change: Mapping[str, Any]) -> Change:
    targets = [detail.get("Target", {}) for detail in change.get("Details", [])]
    return Change(
        change["Action"],
        change["LogicalResourceId"],
        change["ResourceType"],
        change.get("Replacement") == "True",
        change.get("Replacement") == "Conditional",
        tuple(sorted({str(target.get("Name") or target.get("Attribute") or "") for target in targets} - {""})),
    )
