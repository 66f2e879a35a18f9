"""A model of uploads, windows, drains and tasks. `explore` visits every interleaving of their steps around the time
when the last task leaves.

The model has no clock. It knows only the order of events, such as the end of a window or a message that becomes visible
again. The decisions of the Lambda, the state machine and the task come from `Rules`. A message is stranded if it is in
the queue and nothing remains that would look for it. Each step clears the fields of tasks and drains on which no later
step depends, so that there are fewer states to visit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from flows.pipeline.leaving import Poll

LAUNCH, WAIT, COVERED = "Launch", "Wait for the window to end", "Other tasks drain"
_STAY = 1_000.0  # an arbitrary time; each poll begins before or after it
_LAST_WINDOW = 2
_ALIVE = ("boots", "idle", "polls", "works")


@dataclass(frozen=True)
class Rules:
    """The decisions of the Lambda, the state machine and the task.

    Attributes:
        upload_steps: the steps that the Lambda takes for an upload, in order: "send", "clock" and "start".
        decide: returns what an upload's drain does, given the number of tasks and whether its window has settled.
        waits_until_settled: whether a waiting drain continues only once its window has settled (`_is_settled`).
        stays_for_window: whether a launched task must stay until its window has ended.
        stays_for_hidden: whether the successor of a killed task stays until all messages that are hidden at its launch
            are visible again.
        relaunches: whether a killed task is replaced by another one.
        may_leave: the task's rule for when it may end.
    """

    upload_steps: tuple[str, ...]
    decide: Callable[[int, bool], str]
    waits_until_settled: bool
    stays_for_window: bool
    stays_for_hidden: bool
    relaunches: bool
    may_leave: Callable[[Poll, float], bool]


class Upload(NamedTuple):
    step: int = 0
    window: int = -1


class Drain(NamedTuple):
    window: int
    phase: str  # counts, waits, runs, closed
    task: int = -1


class Task(NamedTuple):
    window: int = -1  # the task stays until the end of this window
    awaited: frozenset[int] = frozenset()  # the hidden messages that it stays for
    phase: str = "boots"
    began: int = -1  # the window in which its last poll began
    missed: bool = False  # whether an awaited message was still hidden when that poll began
    message: int = -1


class State(NamedTuple):
    window: int
    uploads: tuple[Upload, ...]
    visible: frozenset[int]
    hidden: frozenset[int]
    drains: tuple[Drain, ...]
    tasks: tuple[Task, ...]
    kills: int

    def with_upload(self, index: int, upload: Upload) -> State:
        return self._replace(uploads=_put(self.uploads, index, upload))

    def with_drain(self, index: int, drain: Drain) -> State:
        return self._replace(drains=_put(self.drains, index, drain))

    def with_task(self, index: int, task: Task) -> State:
        return self._replace(tasks=_put(self.tasks, index, task))

    @property
    def is_stranded(self) -> bool:
        moving = (
            any(task.phase in _ALIVE for task in self.tasks)
            or any(drain.phase != "closed" for drain in self.drains)
            or any(upload.step < len(_STEPS) for upload in self.uploads)
        )
        return bool(self.visible or self.hidden) and not moving


_STEPS = ("send", "clock", "start")
Move: TypeAlias = tuple[str, State]


def explore(rules: Rules, *, kills: int = 0, uploads: int = 2) -> tuple[int, list[str]]:
    """Return the number of explored states, and the moves that strand a message, or no moves if no interleaving strands
    one."""
    first = State(
        0, (Upload(),) * uploads, frozenset(), frozenset(), (Drain(-1, "runs", 0),), (Task(phase="idle"),), kills
    )
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    fresh = deque([first])
    while fresh:
        state = fresh.popleft()
        if state.is_stranded:
            return len(came_from), _moves_to(state, came_from)
        for move, after in _moves(state, rules):
            if after not in came_from:
                came_from[after] = (state, move)
                fresh.append(after)
    return len(came_from), []


def _moves_to(state: State, came_from: dict[State, tuple[State, str] | None]) -> list[str]:
    moves: list[str] = []
    while (before := came_from[state]) is not None:
        state, move = before
        moves.insert(0, move)
    return moves


def _moves(state: State, rules: Rules) -> Iterator[Move]:
    if state.window < _LAST_WINDOW:
        yield "the window ends", state._replace(window=state.window + 1)
    for message in state.hidden:
        visible = state._replace(visible=state.visible | {message}, hidden=state.hidden - {message})
        yield f"message {message} is visible again", visible
    for index, upload in enumerate(state.uploads):
        if upload.step < len(_STEPS) and state.window < _LAST_WINDOW:
            yield _move_upload(state, index, upload, rules)
    for index, drain in enumerate(state.drains):
        yield from _move_drain(state, index, drain, rules)
    for index, task in enumerate(state.tasks):
        yield from _move_task(state, index, task, rules)


def _move_upload(state: State, index: int, upload: Upload, rules: Rules) -> Move:
    step = rules.upload_steps[upload.step]
    moved = upload._replace(step=upload.step + 1)
    if step == "clock":
        return f"upload {index} reads window {state.window}", state.with_upload(
            index, moved._replace(window=state.window)
        )
    after = state.with_upload(index, moved)
    if step == "send":
        return f"upload {index} sends", after._replace(visible=after.visible | {index})
    if any(drain.window == upload.window for drain in state.drains):
        return f"upload {index} finds the drain of {upload.window}", after
    return f"upload {index} starts the drain of {upload.window}", after._replace(
        drains=(*after.drains, Drain(upload.window, "counts"))
    )


def _move_drain(state: State, index: int, drain: Drain, rules: Rules) -> Iterator[Move]:
    if drain.phase == "counts":
        yield _decide(state, index, drain, rules, settled=False)
    if drain.phase == "waits" and (not rules.waits_until_settled or _is_settled(state, drain)):
        yield _decide(state, index, drain, rules, settled=True)
    if drain.phase == "runs" and state.tasks[drain.task].phase == "gone":
        yield f"the drain of {drain.window} ends", state.with_drain(index, Drain(drain.window, "closed"))
    if drain.phase == "runs" and state.tasks[drain.task].phase == "killed":
        if not rules.relaunches:
            yield f"the drain of {drain.window} fails", state.with_drain(index, Drain(drain.window, "closed"))
        else:
            awaited = state.hidden if rules.stays_for_hidden else frozenset()
            yield _launch(state, index, drain, rules, awaited)


def _is_settled(state: State, drain: Drain) -> bool:
    """Return whether the drain's window has ended, and every task whose last receive began before that has gone."""
    return state.window > drain.window and not any(
        task.phase == "left" and task.began <= drain.window for task in state.tasks
    )


def _decide(state: State, index: int, drain: Drain, rules: Rules, *, settled: bool) -> Move:
    listed = sum(task.phase not in ("gone", "killed") for task in state.tasks)
    decision = rules.decide(listed, settled)
    what = f"the drain of {drain.window} counts {listed}: {decision}"
    if decision == LAUNCH:
        return what, _launch(state, index, drain, rules, frozenset())[1]
    phase = "waits" if decision == WAIT else "closed"
    return what, state.with_drain(index, drain._replace(phase=phase))


def _launch(state: State, index: int, drain: Drain, rules: Rules, awaited: frozenset[int]) -> Move:
    task = Task(drain.window if rules.stays_for_window else -1, awaited)
    launched = state._replace(tasks=(*state.tasks, task))
    running = drain._replace(phase="runs", task=len(state.tasks))
    return f"the drain of {drain.window} launches", launched.with_drain(index, running)


def _move_task(state: State, index: int, task: Task, rules: Rules) -> Iterator[Move]:
    if task.phase == "boots":
        yield f"task {index} has started", state.with_task(index, task._replace(phase="idle"))
    elif task.phase == "idle":
        polling = task._replace(phase="polls", began=state.window, missed=bool(task.awaited & state.hidden))
        yield f"task {index} begins to receive", state.with_task(index, polling)
    elif task.phase == "polls" and state.visible:
        message = min(state.visible)
        working = state.with_task(index, task._replace(phase="works", began=-1, missed=False, message=message))
        yield f"task {index} receives {message}", working._replace(visible=state.visible - {message})
    elif task.phase == "polls":
        is_early = task.began <= task.window or task.missed
        may = rules.may_leave(Poll(_STAY - 1 if is_early else _STAY + 1, 0), _STAY)
        if may:
            yield (
                f"task {index} receives nothing and leaves",
                state.with_task(index, Task(phase="left", began=task.began)),
            )
        else:
            staying = task._replace(phase="idle", began=-1, missed=False)
            yield f"task {index} receives nothing and stays", state.with_task(index, staying)
    elif task.phase == "works":
        yield f"task {index} is done", state.with_task(index, task._replace(phase="idle", message=-1))
    elif task.phase == "left":
        yield f"task {index} is gone", state.with_task(index, Task(phase="gone"))
    if state.kills and task.phase in _ALIVE:
        held = {task.message} if task.phase == "works" else set()
        killed = state.with_task(index, Task(phase="killed"))
        yield f"task {index} is killed", killed._replace(hidden=state.hidden | held, kills=state.kills - 1)


def _put(values: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:index], value, *values[index + 1 :])
