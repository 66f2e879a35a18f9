"""`sluice destroy` also stops tasks that start while it deletes the stack."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.console import Console

from deployment.aws.stack import StackFailed
from deployment.commands.destroy import _end_work as end_work
from deployment.commands.destroy import delete_without_tasks
from tests.unit.empty_account import empty_account

FAILED = StackFailed("sluice", "DELETE_FAILED", ())


def deleting(*answers: StackFailed | tuple[str, ...]) -> Callable[[], tuple[str, ...]]:
    """Return a fake deletion of a stack, which returns or raises the next of `answers` each time it is called."""
    left = iter(answers)

    def delete() -> tuple[str, ...]:
        answer = next(left)
        if isinstance(answer, StackFailed):
            raise answer
        return answer

    return delete


def test_a_task_that_started_while_the_stack_was_deleted_is_stopped_and_the_rest_deleted() -> None:
    """Until the state machine is deleted, an execution can start a task, which then blocks the cluster's deletion."""
    tasks = [2, 1]
    assert delete_without_tasks(deleting(FAILED, ("kept",)), lambda: tasks.pop(0)) == ("kept",)
    assert tasks == []


def test_a_deletion_that_fails_without_running_tasks_is_not_retried() -> None:
    with pytest.raises(StackFailed) as raised:
        delete_without_tasks(deleting(FAILED, ()), lambda: 0)
    assert raised.value is FAILED


def test_a_stack_whose_published_bucket_was_deleted_can_be_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with empty_account():
        assert end_work(Console(quiet=True), {"PublishedBucket": "no-longer-there"}) == 0
