"""`sluice destroy` and tasks that come up while it deletes."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from deployment.aws.stack import StackFailed
from deployment.commands import destroy


def deleting(*answers: StackFailed | tuple[str, ...]) -> Callable[[], tuple[str, ...]]:
    """A deletion that ends like this, one time after the other."""
    left = list(answers)

    def delete() -> tuple[str, ...]:
        answer = left.pop(0)
        if isinstance(answer, StackFailed):
            raise answer
        return answer

    return delete


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tasks each look finds; all of them end."""
    found: list[int] = []

    def end_tasks(_ecs: object, _cluster: str, on_stop: Callable[[int], None], **_: str) -> int:
        count = found.pop(0)
        if count:
            on_stop(count)
        return count

    monkeypatch.setattr(destroy, "client_of", lambda _: None)
    monkeypatch.setattr(destroy, "end_tasks", end_tasks)
    return found


def test_a_task_that_started_while_the_stack_was_deleted_is_stopped_and_the_rest_deleted(tasks: list[int]) -> None:
    """A run of the state machine may start one until the machine is gone; the cluster then stays."""
    tasks += [2, 1]
    told = io.StringIO()
    deletion = deleting(StackFailed("the stack ended in DELETE_FAILED: Cluster"), ("kept",))
    assert destroy._without_tasks(Console(file=told, width=200), "arn:cluster", deletion) == ("kept",)
    assert "Stopping 2 running tasks" in told.getvalue()
    assert "Stopping 1 running task," in told.getvalue()


def test_a_deletion_that_fails_without_a_task_is_told_as_it_is(tasks: list[int]) -> None:
    tasks += [0, 0]
    with pytest.raises(StackFailed, match="Bucket"):
        destroy._without_tasks(Console(quiet=True), "arn:cluster", deleting(StackFailed("Bucket"), ()))


def test_a_stack_that_was_half_made_has_no_cluster_to_ask(tasks: list[int]) -> None:
    assert destroy._without_tasks(Console(quiet=True), None, deleting(("kept",))) == ("kept",)
