"""One CloudFormation stack: what it is in, bringing it up to date through a change set, deleting it.

States and what may follow them: docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from blocks.aws_errors import aws_error_code
from flows.refinery.errors import TerminalError

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 5.0
_QUIET_SECONDS = 60.0  # after this long without an event the stack itself is asked, should the last event be lost
_LONGEST_WAIT_SECONDS = 3_600.0  # for an operation that somebody else began
_MAX_REASONS = 5  # the first failure is the cause; most that follow are cancellations
_SUCCEEDED = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"})
_UPDATABLE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"})
_NEVER_MADE = "REVIEW_IN_PROGRESS"  # change sets were made for it, none executed
_ADVICE = {
    "ROLLBACK_COMPLETE": "its creation failed and was undone; delete it (sluice destroy), then deploy again",
    "ROLLBACK_FAILED": "its creation failed and could not be undone; delete it (sluice destroy), then deploy again",
    "CREATE_FAILED": "its creation failed; delete it (sluice destroy), then deploy again",
    "DELETE_FAILED": "it could not be deleted whole; delete it (sluice destroy) once its events' cause is removed",
    "UPDATE_ROLLBACK_FAILED": "an update could not be undone; continue the rollback in the CloudFormation console",
}
_FOLLOWED_BY_ROLLBACK = frozenset({"CREATE_FAILED", "UPDATE_FAILED"})
# CloudFormation validates some things before it begins, and then names the call that tells what it found.
_SEE_EVENTS = "DescribeEvents"
_REFUSAL = "ValidationError"  # CloudFormation's code for a template or parameter that it does not accept
_HANDLER_ERROR = re.compile(r"HandlerErrorCode: (?P<code>\w+)")
_QUOTA_WORDS = ("limit exceeded", "limitexceeded", "quota", "maximum number of", "unreservedconcurrentexecution")
_TAKEN_WORDS = ("name_conflict", "already exist", "alreadyexists", "already owned by you")
_NO_ECS_ROLE_WORDS = "unable to assume the service linked role"
_DENIED_WORDS = ("not authorized to perform", "access denied", "accessdenied")
# CloudFormation has no code for "nothing to change": the AWS CLI looks for these words, too.
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed")


class StackError(TerminalError):
    """Base of what can go wrong with a deployment."""


class StackBusy(StackError):
    """Another operation on the stack is under way."""


class StackUnusable(StackError):
    """The stack is in a state that no update leads out of, such as ROLLBACK_COMPLETE."""


class StackParametersWrong(StackError):
    """The template has no parameter of a name that was given, or one without a default was not given."""


class ChangesRefused(StackError):
    """CloudFormation does not accept the change set: the template or a parameter's value is wrong."""


class ChangesDeclined(StackError):
    """The changes were shown and not agreed to."""


class StackFailed(StackError):
    """Resources could not be made, changed or deleted; CloudFormation put back what it had changed."""


class StackNameTaken(StackFailed):
    """A resource was to have a name that is taken: of a bucket, in all of AWS; of others, in the account."""


class StackQuotaReached(StackFailed):
    """A service quota of the account left no room for a resource."""


class StackForbidden(StackFailed):
    """The credentials may not make a resource; the message names the action."""


@dataclass(frozen=True, slots=True)
class StackEvent:
    """One step of an operation.

    Attributes:
        resource: the logical id in the template, or the stack's own name.
        resource_type: such as AWS::SQS::Queue.
        status: such as CREATE_IN_PROGRESS.
        reason: why, where CloudFormation says it; else "".
    """

    resource: str
    resource_type: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change that a change set would make.

    Attributes:
        action: Add, Modify, Remove or Import.
        resource: the logical id in the template.
        resource_type: such as AWS::SQS::Queue.
        replaces: True where the resource is made anew and the old one deleted.
        may_replace: True where that turns out only while the change is made.
        what: the properties that change, as far as CloudFormation says.
    """

    action: str
    resource: str
    resource_type: str
    replaces: bool
    may_replace: bool = False
    what: tuple[str, ...] = ()


Agree = Callable[[Sequence[Change]], bool]


class Stack:
    """A stack by its name.

    Args:
        cloudformation: boto3's client.
        name: the stack's name.
        on_event: called for every step of an operation, as it happens.
    """

    def __init__(self, cloudformation: Any, name: str, on_event: Callable[[StackEvent], None]) -> None:
        self._cloudformation = cloudformation
        self._name = name
        self._on_event = on_event
        self._seen: set[str] = set()

    def find(self) -> dict[str, Any] | None:
        """Return the stack's summary, or None where there is none of this name."""
        return find_stack(self._cloudformation, self._name)

    def apply(self, template: Mapping[str, str], parameters: Mapping[str, str], agree_to: Agree) -> None:
        """Create or update the stack; nothing to change is success.

        Args:
            template: TemplateBody or TemplateURL, as CloudFormation's calls take it.
            parameters: one that is left out keeps its value in the stack, or takes its default.
            agree_to: shown the changes before they are made; False stops.

        Raises:
            StackError: a subclass for each cause.
        """
        summary = self._usable()
        exists = summary is not None and summary["StackStatus"] != _NEVER_MADE
        stack_id, change_set_id = self._create_change_set(
            template, self._parameters(template, parameters, exists), exists
        )
        try:
            changes = self._changes(change_set_id)
            agreed = bool(changes) and agree_to(changes)
        except BaseException:  # also Ctrl-C at the question: nothing half-made stays behind
            self._discard(change_set_id, stack_id, exists)
            raise
        if not agreed:
            self._discard(change_set_id, stack_id, exists)
            if changes:
                raise ChangesDeclined(f"the stack {self._name} was left as it is")
            return
        self._mark(stack_id)
        self._cloudformation.execute_change_set(ChangeSetName=change_set_id)
        self._follow(stack_id)

    def preview(self, template: Mapping[str, str], parameters: Mapping[str, str]) -> list[Change]:
        """Return what `apply` would change, and leave everything as it is.

        Raises:
            StackError: a subclass for each cause.
        """
        shown: list[Change] = []

        def decline(changes: Sequence[Change]) -> bool:
            shown.extend(changes)
            return False

        with suppress(ChangesDeclined):
            self.apply(template, parameters, decline)
        return shown

    def settle(self, on_wait: Callable[[str], None], *, deadline_seconds: float = _LONGEST_WAIT_SECONDS) -> str:
        """Wait until an operation that somebody began on the stack has ended; return the state it left.

        Args:
            on_wait: told the state, once, when there is something to wait for.
            deadline_seconds: after this long the wait is given up.

        Raises:
            StackBusy: it did not end in time.
        """
        given_up_at = time.monotonic() + deadline_seconds
        told = False
        for pause in _pauses():
            summary = self.find()
            status = str(summary["StackStatus"]) if summary else _NEVER_MADE
            if status == _NEVER_MADE or not status.endswith("_IN_PROGRESS"):
                return status
            if time.monotonic() > given_up_at:
                raise StackBusy(f"the stack {self._name} has been in {status} for {deadline_seconds / 60:.0f} minutes")
            if not told:
                on_wait(status)
                told = True
            time.sleep(pause)
        raise AssertionError("pauses do not end")

    def delete(self, summary: Mapping[str, Any]) -> None:
        """Delete the stack of which `find` gave the summary.

        Raises:
            StackFailed: with what could not be deleted.
            StackBusy: another operation is under way.
        """
        status, stack_id = str(summary["StackStatus"]), str(summary["StackId"])
        if status.endswith("_IN_PROGRESS") and status != _NEVER_MADE:
            raise StackBusy(f"the stack {self._name} is in {status}; wait until that has ended, then delete it")
        self._mark(stack_id)
        self._cloudformation.delete_stack(StackName=stack_id)
        self._follow(stack_id)

    def buckets(self) -> tuple[str, ...]:
        """Return the names of the buckets that are the stack's own."""
        pages = self._cloudformation.get_paginator("list_stack_resources").paginate(StackName=self._name)
        resources = (resource for page in pages for resource in page["StackResourceSummaries"])
        return tuple(
            resource["PhysicalResourceId"]
            for resource in resources
            if resource["ResourceType"] == "AWS::S3::Bucket" and resource.get("PhysicalResourceId")
        )

    def _usable(self) -> dict[str, Any] | None:
        summary = self.find()
        status = summary["StackStatus"] if summary else _NEVER_MADE
        if status == _NEVER_MADE or status in _UPDATABLE:
            return summary
        if status.endswith("_IN_PROGRESS"):
            raise StackBusy(f"the stack {self._name} is in {status}; wait until that has ended, then deploy again")
        raise StackUnusable(f"the stack {self._name} is in {status}: {_ADVICE.get(status, 'see its events')}")

    def _create_change_set(
        self, template: Mapping[str, str], parameters: Sequence[Mapping[str, object]], exists: bool
    ) -> tuple[str, str]:
        """Return the ids of the stack and of the change set."""
        try:
            answer = self._cloudformation.create_change_set(
                StackName=self._name,
                ChangeSetName=f"sluice-{uuid.uuid4().hex[:12]}",
                ChangeSetType="UPDATE" if exists else "CREATE",
                Parameters=parameters,
                Capabilities=["CAPABILITY_IAM"],
                **template,
            )
        except ClientError as error:
            if aws_error_code(error) != _REFUSAL:
                raise
            raise ChangesRefused(f"CloudFormation refuses the changes to {self._name}: {_message(error)}") from error
        return str(answer["StackId"]), str(answer["Id"])

    def _parameters(
        self, template: Mapping[str, str], given: Mapping[str, str], exists: bool
    ) -> list[dict[str, object]]:
        try:
            summary = self._cloudformation.get_template_summary(**template)
        except ClientError as error:
            if aws_error_code(error) != _REFUSAL:
                raise
            raise ChangesRefused(f"the template is not valid: {_message(error)}") from error
        declared = {entry["ParameterKey"]: "DefaultValue" in entry for entry in summary.get("Parameters", [])}
        kept = (self._current_parameters() if exists else set()) & set(declared) - set(given)
        unknown = sorted(set(given) - set(declared))
        missing = sorted(
            name for name, has_default in declared.items() if not has_default and name not in kept | set(given)
        )
        if unknown or missing:
            raise StackParametersWrong(f"the template has no parameters {unknown}, and needs values for {missing}")
        values: list[dict[str, object]] = []
        values += ({"ParameterKey": name, "ParameterValue": value} for name, value in sorted(given.items()))
        values += ({"ParameterKey": name, "UsePreviousValue": True} for name in sorted(kept))
        return values

    def _current_parameters(self) -> set[str]:
        stack = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"][0]
        return {parameter["ParameterKey"] for parameter in stack.get("Parameters", [])}

    def _changes(self, change_set_id: str) -> list[Change]:
        """Wait for the change set to be worked out; an empty list means that nothing differs."""
        for pause in _pauses():
            described = self._cloudformation.describe_change_set(ChangeSetName=change_set_id)
            if described["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                break
            time.sleep(pause)
        if described["Status"] == "FAILED":
            reason = described.get("StatusReason", "")
            if any(words in reason for words in _NO_CHANGES):
                return []
            if _SEE_EVENTS in reason:
                errors = self._validation_errors(ChangeSetName=change_set_id)
                reason = " | ".join(f"{one.resource}: {one.reason}" for one in errors) or reason
            raise ChangesRefused(f"CloudFormation refuses the changes to {self._name}: {reason}")
        pages = self._cloudformation.get_paginator("describe_change_set").paginate(ChangeSetName=change_set_id)
        return [_change(change["ResourceChange"]) for page in pages for change in page["Changes"]]

    def _discard(self, change_set_id: str, stack_id: str, exists: bool) -> None:
        """Delete a change set that is not to be executed, and the empty stack that was made for it."""
        self._cloudformation.delete_change_set(ChangeSetName=change_set_id)
        if not exists:
            self._cloudformation.delete_stack(StackName=stack_id)

    def _mark(self, stack_id: str) -> None:
        """Remember the events of earlier operations."""
        self._seen = {event["EventId"] for event in self._events(stack_id)}

    def _follow(self, stack_id: str) -> None:
        """Report events until one says that the stack itself has come to rest."""
        failures: list[StackEvent] = []
        quiet_since = time.monotonic()
        for pause in _pauses():
            for event in self._new_events(stack_id):
                quiet_since = time.monotonic()
                step = _step(event)
                self._on_event(step)
                if step.status.endswith("_FAILED"):
                    failures.append(step)
                if event["PhysicalResourceId"] == stack_id and self._has_ended(stack_id, step.status):
                    return self._judge(stack_id, self._status_after(stack_id, step.status), failures)
            if time.monotonic() - quiet_since > _QUIET_SECONDS:
                status = self._status(stack_id)
                if not status.endswith("_IN_PROGRESS"):
                    return self._judge(stack_id, status, failures)
            time.sleep(pause)

    def _has_ended(self, stack_id: str, status: str) -> bool:
        """Whether the stack itself has come to rest; a failure is mostly followed by putting back what was changed."""
        if status.endswith("_IN_PROGRESS"):
            return False
        return status not in _FOLLOWED_BY_ROLLBACK or self._status_after(stack_id, status) != status

    def _status_after(self, stack_id: str, status: str) -> str:
        """Return the state that a stack of this state has come to by now."""
        if status not in _FOLLOWED_BY_ROLLBACK:
            return status
        now = self._status(stack_id)
        return status if now.endswith("_IN_PROGRESS") else now

    def _status(self, stack_id: str) -> str:
        return str(self._cloudformation.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"])

    def _judge(self, stack_id: str, status: str, failures: Sequence[StackEvent]) -> None:
        if status in _SUCCEEDED:
            return
        if any(_SEE_EVENTS in failure.reason for failure in failures):
            failures = self._validation_errors(StackName=stack_id) or failures
        reasons = [f"{step.resource} ({step.resource_type}): {step.reason}" for step in failures[:_MAX_REASONS]]
        kind, advice = _cause(failures)
        told = " | ".join(reasons or ["see its events"])
        raise kind(f"the stack {self._name} ended in {status}: {told}{advice}")

    def _validation_errors(self, **operation: str) -> list[StackEvent]:
        """Return what CloudFormation found before it began: names that are taken, values that are none."""
        try:
            events = self._cloudformation.describe_events(**operation)["OperationEvents"]
        except ClientError:
            return []  # without the permission to ask, what failed is told as far as it is known
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

    def _new_events(self, stack_id: str) -> list[dict[str, Any]]:
        """Return the events not seen yet, oldest first."""
        new: list[dict[str, Any]] = []
        for event in self._events(stack_id):
            if event["EventId"] in self._seen:
                break
            new.append(event)
        self._seen.update(event["EventId"] for event in new)
        return new[::-1]

    def _events(self, stack_id: str) -> Iterator[dict[str, Any]]:
        """Yield the stack's events, newest first."""
        for page in self._cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id):
            yield from page["StackEvents"]


def find_stack(cloudformation: Any, name: str) -> dict[str, Any] | None:
    """Return the summary of the stack of this name, or None where there is none.

    Listing tells the two apart; describing a stack that does not exist answers with an error like any other.
    """
    pages = cloudformation.get_paginator("list_stacks").paginate()
    summaries = (summary for page in pages for summary in page["StackSummaries"])
    mine = (one for one in summaries if one["StackName"] == name and one["StackStatus"] != "DELETE_COMPLETE")
    return next(mine, None)


def _pauses() -> Iterator[float]:
    """Yield pauses that grow: short operations end at once, long ones do not meet CloudFormation's rate limit."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _step(event: Mapping[str, Any]) -> StackEvent:
    return StackEvent(
        event["LogicalResourceId"],
        event["ResourceType"],
        event["ResourceStatus"],
        event.get("ResourceStatusReason", ""),
    )


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


def _cause(failures: Sequence[StackEvent]) -> tuple[type[StackFailed], str]:
    """Return the error for the first failure, and what to do about it.

    CloudFormation states the cause in the reason's text only: newer resource types end it in "HandlerErrorCode: X",
    older ones quote the service's own words.
    """
    reason = failures[0].reason if failures else ""
    found = _HANDLER_ERROR.search(reason)
    code = found["code"] if found else ""
    lower = reason.lower()
    if _NO_ECS_ROLE_WORDS in lower:
        return StackFailed, (
            ". AWS makes ECS's own role with an account's first cluster, and it was not ready yet: deploy again; if it "
            "stays away, aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com"
        )
    if code == "ServiceLimitExceeded" or any(words in lower for words in _QUOTA_WORDS):
        return StackQuotaReached, ". Ask for more under Service Quotas in the AWS console, then deploy again"
    if code == "AlreadyExists" or any(words in lower for words in _TAKEN_WORDS):
        return StackNameTaken, ". The name is taken: choose another, or remove what has it, then deploy again"
    if code == "AccessDenied" or any(words in lower for words in _DENIED_WORDS):
        return StackForbidden, ". Ask for the permission that the message names, then deploy again"
    return StackFailed, ""


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", error))
