"""Count what uploads cost: every request, transition, task, log line and CPU second, from what really happened.

Requests to AWS are the decisions of IAM about the stack's roles: each request is one, and so is each call that
Step Functions or the scheduler makes in a role's name. What the benchmark itself asks is not counted.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx

from deployment.local.cloud import LocalCloud
from deployment.local.services import Service
from lambda_trigger.message import UploadMessage
from tests.benchmarks.counted_prefect import BENCH_AGENT, COUNTS_PATH
from tests.benchmarks.processes import own_and_childrens
from tests.chain.chain import Chain
from tests.emulator.records import decisions_of

RECORDED = Path(__file__).parent / "recorded"
_FINAL = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
_LOG_GROUPS = ("TriggerLogGroup", "TaskLogGroup")
_LOG_EVENT_BYTES = 26  # that CloudWatch adds to each line: docs.aws.amazon.com/AmazonCloudWatch/latest/logs/
_QUERIED_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True)
class TaskTimes:
    """How long a task ran on this machine, in seconds from its launch.

    Attributes:
        busy: until it deleted or returned its last message; 0 if it got none.
        stay: until when it had to stay; 0 for one that is not kept.
    """

    seconds: float
    busy: float
    stay: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a number of uploads caused.

    Attributes:
        files: uploads, all of which have a receipt.
        seconds: from the first upload to the last receipt.
        asked: the most tasks that one drain was asked for.
        tasks: every task that was launched.
        states_entered: by the executions, without those inside a Map, of which the emulator writes no history.
        executions: drains that were started.
        starts: calls of StartExecution, also for windows that had their drain.
        history_events: of the executions; each is a line of their log, which the emulator does not write.
        aws: requests by action, such as {"s3:PutObject": 1_000}.
        prefect: requests by method and path.
        lambda_calls: invocations of the function.
        lambda_seconds: that AWS would bill for them, on this machine.
        log_bytes: of the function and the tasks, as CloudWatch counts them.
        cpu: CPU seconds of prefect (the server), cloud (the emulator) and tasks (with the function).
        unrecorded: receipts without a flow run in its final state, when the drain was over.
        unrecorded_later: the same after the sweep's task has caught up.
    """

    files: int
    seconds: float
    asked: int
    tasks: tuple[TaskTimes, ...]
    states_entered: int
    executions: int
    starts: int
    history_events: int
    aws: dict[str, int]
    prefect: dict[str, int]
    lambda_calls: int
    lambda_seconds: float
    log_bytes: int
    cpu: dict[str, float]
    unrecorded: int
    unrecorded_later: int

    def aws_requests(self, *actions: str) -> int:
        """Return how many requests there were of these actions; "sqs:" means all of a service."""
        return sum(count for name, count in self.aws.items() if name in actions or f"{name.split(':')[0]}:" in actions)

    @property
    def transitions(self) -> int:
        """Return the state transitions that AWS bills; inside the Map each launch of a task is one."""
        return self.states_entered + self.aws_requests("ecs:RunTask")

    @property
    def events(self) -> int:
        """Return the outcomes that were announced: one for each upload."""
        return self.files

    @property
    def prefect_requests(self) -> int:
        """Return all requests to Prefect's API."""
        return sum(self.prefect.values())

    def to_json(self) -> str:
        """Serialise, for the pages that are made of it."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def recorded(cls, name: str) -> Self:
        """Return counts that a benchmark has recorded."""
        fields = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
        return cls(**{**fields, "tasks": tuple(TaskTimes(**task) for task in fields["tasks"])})

    def record(self, name: str) -> Path:
        """Keep the counts for the pages that are made of them."""
        path = RECORDED / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")
        return path


class CountedCloud(LocalCloud):
    """A local cloud whose Prefect server counts its requests."""

    def _begin(self, name: str, log: str, command: list[str], *rest: Any, **more: Any) -> Service:
        counted = ["tests.benchmarks.counted_prefect" if part.endswith(".serve_prefect") else part for part in command]
        return super()._begin(name, log, counted, *rest, **more)


class Meter:
    """Counts from its creation on what a chain does."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._since = time.time()
        self._decisions = len(decisions_of(chain.cloud.state_dir))
        self._prefect = self._prefect_requests()
        self._cpu = self._cpu_seconds()

    def counts(
        self, uploads: Iterable[UploadMessage], *, seconds: float, unrecorded: int, unrecorded_later: int
    ) -> Counts:
        """Return what was counted so far, for these uploads."""
        drains = self._drains()
        history = [event for drain in drains for event in self._history(drain["executionArn"])]
        reports = list(self._lambda_reports())
        cpu, before = self._cpu_seconds(), self._cpu
        prefect = Counter(self._prefect_requests())
        prefect.subtract(self._prefect)
        decisions = decisions_of(self._chain.cloud.state_dir)[self._decisions :]
        aws = Counter(decision["action"] for decision in decisions)
        return Counts(
            files=len(list(uploads)),
            seconds=round(seconds, 1),
            asked=max((int(json.loads(drain["input"]).get("tasks", 1)) for drain in drains), default=0),
            tasks=tuple(self._tasks(decisions)),
            states_entered=sum(event["type"].endswith("StateEntered") for event in history),
            executions=len(drains),
            history_events=len(history),
            starts=aws["states:StartExecution"],
            aws=dict(sorted(aws.items())),
            prefect={path: count for path, count in sorted(prefect.items()) if count},
            lambda_calls=len(reports),
            lambda_seconds=round(sum(reports), 2),
            log_bytes=sum(map(self._log_bytes, _LOG_GROUPS)),
            cpu={name: round(value - before[name], 2) for name, value in cpu.items()},
            unrecorded=unrecorded,
            unrecorded_later=unrecorded_later,
        )

    def last_receipt(self) -> float:
        """Return when the last receipt was written."""
        return max(
            seconds_of(decision["time"])
            for decision in decisions_of(self._chain.cloud.state_dir)[self._decisions :]
            if decision["action"] == "s3:PutObject" and "/receipts/" in decision["resource"]
        )

    # --- AWS --------------------------------------------------------------------------------------------------

    def _drains(self) -> list[dict[str, Any]]:
        return [drain for drain in self._chain.drains() if drain["startDate"].timestamp() >= self._since]

    def _history(self, execution_arn: str) -> Iterator[dict[str, Any]]:
        pages = self._chain.step_functions.get_paginator("get_execution_history").paginate(executionArn=execution_arn)
        for page in pages:
            yield from page["events"]

    def _tasks(self, decisions: Sequence[Mapping[str, Any]]) -> Iterator[TaskTimes]:
        """Yield the times of the tasks that were launched; a task's id is the name of its role's session."""
        last_message = {
            decision["principal"].rpartition("/")[2]: seconds_of(decision["time"])
            for decision in decisions
            if decision["action"] in ("sqs:DeleteMessage", "sqs:ChangeMessageVisibility")
        }
        for task in self._described_tasks():
            created = task["createdAt"].timestamp()
            if created >= self._since:
                ended = task["stoppedAt"].timestamp() if "stoppedAt" in task else time.time()
                busy = last_message.get(task["taskArn"].rpartition("/")[2], created)
                yield TaskTimes(
                    seconds=round(ended - created, 1),
                    busy=round(busy - created, 1),
                    stay=round(max(0.0, _stay_until(task) - created), 1),
                )

    def _described_tasks(self) -> Iterator[dict[str, Any]]:
        ecs, cluster = self._chain.ecs, self._chain.outputs["ClusterArn"]
        for status in ("RUNNING", "STOPPED"):
            pages = ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=status)
            arns = [arn for page in pages for arn in page["taskArns"]]
            for first in range(0, len(arns), 100):
                yield from ecs.describe_tasks(cluster=cluster, tasks=arns[first : first + 100])["tasks"]

    def _log_bytes(self, group: str) -> int:
        return sum(len(event["message"].encode()) + _LOG_EVENT_BYTES for event in self._log_events(group))

    def _log_events(self, group: str) -> Iterator[dict[str, Any]]:
        pages = self._chain.cloud.client("logs").get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=self._chain.outputs[group], startTime=int(self._since * 1000)):
            yield from page["events"]

    def _lambda_reports(self) -> Iterator[float]:
        """Yield the seconds of each invocation, as its report states."""
        for event in self._log_events("TriggerLogGroup"):
            if '"platform.report"' in event["message"]:
                yield json.loads(event["message"])["record"]["metrics"]["durationMs"] / 1_000

    # --- processes --------------------------------------------------------------------------------------------

    def _cpu_seconds(self) -> dict[str, float]:
        cloud = self._chain.cloud
        emulator, tasks = own_and_childrens(cloud.emulator.pid if cloud.emulator else None)
        server = sum(own_and_childrens(cloud.prefect.pid if cloud.prefect else None))
        return {"cloud": emulator, "tasks": tasks, "prefect": server}

    # --- Prefect ----------------------------------------------------------------------------------------------

    def _prefect_requests(self) -> dict[str, int]:
        url = self._chain.cloud.endpoints.prefect_api_url.removesuffix("/api") + COUNTS_PATH
        counted: dict[str, int] = httpx.get(url, timeout=60).json()
        return counted

    @cached_property
    def _client(self) -> httpx.Client:
        url = self._chain.cloud.endpoints.prefect_api_url
        return httpx.Client(base_url=url, headers={"User-Agent": BENCH_AGENT}, timeout=60)

    def unrecorded(self, uploads: Iterable[UploadMessage]) -> int:
        """Return how many uploads have no flow run in a final state."""
        run_ids = [upload.run_id for upload in uploads]
        found = 0
        for first in range(0, len(run_ids), _QUERIED_AT_ONCE):
            wanted = {
                "idempotency_key": {"any_": run_ids[first : first + _QUERIED_AT_ONCE]},
                "state": {"type": {"any_": _FINAL}},
            }
            found += int(self._client.post("/flow_runs/count", json={"flow_runs": wanted}).raise_for_status().json())
        return len(run_ids) - found


def _stay_until(task: Mapping[str, Any]) -> float:
    variables = [
        variable
        for container in task.get("overrides", {}).get("containerOverrides", [])
        for variable in container.get("environment", [])
    ]
    return float(next((one["value"] for one in variables if one["name"] == "SLUICE_STAY_UNTIL"), 0))


def seconds_of(moment: str) -> float:
    """Return an ISO 8601 time as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()
