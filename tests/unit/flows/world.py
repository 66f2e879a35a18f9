"""A fake of the services to which a drain reports, and helpers that run a drain on an account's queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from blocks.pause import Pause
from flows.composition import assemble
from flows.pipeline.announce import OutcomeNotice
from flows.pipeline.attempts import Attempt
from flows.pipeline.closing import Outlets
from flows.pipeline.dead_tasks import TaskEnd
from flows.pipeline.drain import Drain, Live
from flows.pipeline.job import TaskIdentity, UploadJob
from flows.pipeline.receipt import Receipt
from flows.pipeline.run import run_upload
from tests.unit.flows.conftest import Account

KEY = "incoming/orders/monday.csv"
TASK = TaskIdentity(execution_arn="arn:execution", task_arn="arn:aws:ecs:r:1:task/sluice/4711")
NOTHING: frozenset[str] = frozenset()


@dataclass
class World:
    """Fake EventBridge, Prefect and ECS, which record what a drain reports to them and asks of them.

    Attributes:
        is_away: whether EventBridge and Prefect accept nothing.
        announced, recorded, failures: what EventBridge and Prefect accepted.
        shows_live: whether Prefect can show uploads live.
        asked: the numbers of tasks that the drain asked for.
        ends: task ARN → what ECS reports about the end of the task.
        seen: (messages in the queue, batch notes in S3) at each announcement.
    """

    account: Account
    is_away: bool = False
    announced: list[OutcomeNotice] = field(default_factory=list)
    recorded: list[Receipt] = field(default_factory=list)
    failures: list[Attempt] = field(default_factory=list)
    shows_live: bool = True
    asked: list[int] = field(default_factory=list)
    ends: dict[str, TaskEnd] = field(default_factory=dict)
    seen: list[tuple[int, int]] = field(default_factory=list)

    def announce(self, notices: Sequence[OutcomeNotice]) -> frozenset[str]:
        self.seen.append((self.account.messages(), len(self.account.keys("batches/"))))
        return NOTHING if self.is_away else self._take(self.announced, notices)

    def record(self, outcomes: Sequence[Receipt | Attempt]) -> frozenset[str]:
        if self.is_away:
            return NOTHING
        receipts = self._take(self.recorded, [each for each in outcomes if isinstance(each, Receipt)])
        return receipts | self._take(self.failures, [each for each in outcomes if isinstance(each, Attempt)])

    @property
    def outlets(self) -> Outlets:
        return Outlets(self.announce, self.record)

    @staticmethod
    def _take(taken: list, reported: Sequence) -> frozenset[str]:  # type: ignore[type-arg]
        taken.extend(reported)
        return frozenset(one.run_id for one in reported)


Process = Callable[[Account, UploadJob], Receipt]


class Failing:
    """Processes uploads, but raises the given errors for the first ones."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)

    def __call__(self, account: Account, job: UploadJob) -> Receipt:
        if self._errors:
            raise self._errors.pop(0)
        return run_upload(account.parts, job)


def plainly(account: Account, job: UploadJob) -> Receipt:
    """Process an upload without Prefect."""
    return run_upload(account.parts, job)


def drain(world: World, process: Process = plainly, **task: object) -> bool:
    """Run a task on the account's queue until it ends, and return the result of the drain."""
    identity = replace(TASK, **task)  # type: ignore[arg-type]
    parts = world.account.parts
    return Drain(
        parts,
        identity,
        Live(lambda job: process(world.account, job), lambda: world.shows_live),
        world.outlets,
        ask_for_tasks=world.asked.append,
        is_paused=Pause(parts.settings.published_bucket).is_on,
        end_of_task=world.ends.get,
    ).run()


def with_settings(account: Account, **changes: object) -> Account:
    """Return the account with changed settings of its pipeline."""
    return Account(assemble(account.parts.settings.model_copy(update=changes)))
