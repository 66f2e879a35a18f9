"""Counts what uploads really cost in a local cloud: all requests, state transitions, tasks, log lines and CPU seconds.

Requests to AWS are counted from IAM's decisions about the roles of the stack. IAM makes one for each request with a
role, including those of Step Functions and of the scheduler. Requests of the benchmark itself are not counted.
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
_LOG_EVENT_BYTES = 26  # CloudWatch adds this to each line: docs.aws.amazon.com/AmazonCloudWatch/latest/logs/
_QUERIED_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True)
class TaskTimes:
    """How long a task ran on this machine, in seconds from its launch.

    Attributes:
        busy: the time until it deleted or returned its last message; 0 if it received no message.
        stay: the time until which it had to wait for more messages; 0 if it did not have to wait.
    """

    seconds: float
    busy: float
    stay: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The counts for some uploads.

    Attributes:
        files: the number of uploads, all of which have a receipt.
        seconds: the time from the first upload to the last receipt.
        asked: the largest number of tasks that a drain was asked to launch.
        tasks: all tasks that were launched.
        states_entered: the number of states that the executions entered. States inside a Map are not included, because
            the emulator writes no history of them.
        executions: the number of drains that were started.
        starts: the number of StartExecution calls, including those for windows that already had a drain.
        history_events: the number of events in the executions' histories. On AWS, each is also a line in the state
            machine's log, which the emulator does not write.
        aws: the number of requests by action, such as {"s3:PutObject": 1_000}.
        prefect: the number of requests by method and path.
        lambda_calls: the number of invocations of the Lambda function.
        lambda_seconds: the seconds that AWS would bill for these invocations, at the speed of this machine.
        log_bytes: the size of the logs of the function and the tasks, as CloudWatch counts it.
        cpu: the CPU seconds of "prefect" (the server), "cloud" (the emulator) and "tasks" (including the function).
        unrecorded: the number of uploads without a flow run in a final state at the end of the drain.
        unrecorded_later: the same number after sweeps.
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
        """Return the number of requests for the given actions, where "sqs:" means all actions of the service."""
        return sum(count for name, count in self.aws.items() if name in actions or f"{name.split(':')[0]}:" in actions)

    @property
    def transitions(self) -> int:
        """Return the number of state transitions that AWS bills. The history omits states inside the Map state, so one
        is added for each task that was launched."""
        return self.states_entered + self.aws_requests("ecs:RunTask")

    @property
    def events(self) -> int:
        """Return the number of outcome events, which is one for each upload."""
        return self.files

    @property
    def prefect_requests(self) -> int:
        """Return the total number of requests to Prefect's API."""
        return sum(self.prefect.values())

    def to_json(self) -> str:
        """Return the counts as JSON."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def recorded(cls, name: str) -> Self:
        """Load the counts that a benchmark has recorded."""
        fields = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
        return cls(**{**fields, "tasks": tuple(TaskTimes(**task) for task in fields["tasks"])})

    def record(self, name: str) -> Path:
        """Store the counts, from which pages of the documentation are generated, and return the file's path."""
        path = RECORDED / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")
        return path


class CountedCloud(LocalCloud):
    """A local cloud whose Prefect server counts the requests that it receives."""

    def _begin(self, name: str, log: str, command: list[str], *rest: Any, **more: Any) -> Service:
        counted = ["tests.benchmarks.counted_prefect" if part.endswith(".serve_prefect") else part for part in command]
        return super()._begin(name, log, counted, *rest, **more)


class Meter:
    """Counts what the local pipeline has done since the meter was created."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._since = time.time()
        self._decisions = len(decisions_of(chain.cloud.state_dir))
        self._prefect = self._prefect_requests()
        self._cpu = self._cpu_seconds()

    def counts(
        self, uploads: Iterable[UploadMessage], *, seconds: float, unrecorded: int, unrecorded_later: int
    ) -> Counts:
        """Return what was counted so far, as the counts for the given uploads."""
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
        """Return when the last receipt was written, in seconds since 1970."""
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
        """Yield the times of each launched task. A task is recognised by its ID, which is the name of its role
        session."""
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
        """Yield the seconds of each invocation of the Lambda function, from the report in its log."""
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
        """Return the number of uploads that have no flow run in a final state."""
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
    """Convert an ISO 8601 timestamp to seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()
