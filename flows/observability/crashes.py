"""Says why a flow run crashed: what ECS tells of its task, and the last lines that it logged.

A process that is killed says nothing. Somebody else has to: the task that takes the upload over, or the flow in here,
which an automation starts for every run that Prefect calls Crashed (deployment/prefect_setup/automations.yaml).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError
from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import LogSort
from prefect.states import Completed, Crashed

from blocks.aws import client_of
from flows.composition import TaskLog, task_identity
from flows.observability.run_summary import plain

_LINES = 12
_LINE_CHARACTERS = 300
PLAIN = "Crashed"  # what Prefect calls a crash that nobody has explained yet
_ARTIFACT_KEY = "crash"


@dataclass(frozen=True, slots=True)
class Crash:
    """What is known of a crash.

    Attributes:
        cause: in a few words, for the state's name.
        told: what ECS says, in sentences; empty when it says nothing.
        lines: the last lines of the log, oldest first.
    """

    cause: str = ""
    told: str = ""
    lines: tuple[str, ...] = ()

    @property
    def state_name(self) -> str:
        """The name of the flow run's state."""
        return f"{PLAIN}: {self.cause}" if self.cause else f"{PLAIN}: killed"

    def message(self, before: str) -> str:
        """The message of the state; `before` is what it said already."""
        last = "\n".join(["Its last log lines:", *self.lines]) if self.lines else "It logged nothing."
        return "\n".join(part for part in (before, self.told, last) if part)

    def markdown(self, before: str) -> str:
        """The same for an artifact."""
        lines = "\n".join(line.replace("`", "'") for line in self.lines) or "(none)"
        # Both may quote log lines, and those the names of files.
        told = [plain(text) for text in (before, self.told) if text]
        return "\n\n".join([f"## {self.state_name}", *told, "### Last log lines", f"```\n{lines}\n```"])


def investigate(client: SyncPrefectClient, flow_run: FlowRun, own_log: TaskLog | None) -> Crash:
    """Find out about the crash of `flow_run`: asks ECS, CloudWatch Logs and Prefect, and does without what is away.

    Args:
        own_log: where this process logs, when it is a task of the same definition: the streams differ by the id only.
    """
    task_arn = task_of(flow_run.infrastructure_pid)
    task = _task(task_arn) if task_arn else {}
    log = (_beside(own_log, task_arn) if own_log else _log_of(task)) if task_arn else None
    lines = _lines_in_cloudwatch(log) if log else []
    return Crash(cause_of(task), _told(task) if task else "", tuple(lines or _lines_in_prefect(client, flow_run.id)))


def last_words(client: SyncPrefectClient, flow_run: FlowRun) -> Crash:
    """Return what Prefect itself knows of the crash: quick enough for a task that has an upload to see through."""
    return Crash(lines=tuple(_lines_in_prefect(client, flow_run.id)))


def infrastructure_of(task_arn: str) -> str:
    """Return how prefect-aws writes down in a flow run which task it is in: CLUSTER::TASK."""
    return f"{task_arn.rsplit(':task/', 1)[-1].partition('/')[0]}::{task_arn}"


def task_of(infrastructure_pid: str | None) -> str | None:
    """Return the ARN of the ECS task that a flow run is in; None when it is in none."""
    arn = (infrastructure_pid or "").rpartition("::")[2]
    return arn if ":task/" in arn else None


def cause_of(task: dict[str, Any]) -> str:
    """Return in a few words why ECS says that a task stopped; empty when it does not say.

    The words are those of docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html
    """
    said = " ".join([task.get("stoppedReason") or "", *(box.get("reason") or "" for box in _boxes(task))])
    codes = [box["exitCode"] for box in _boxes(task) if box.get("exitCode") is not None]
    if "OutOfMemory" in said:
        return "out of memory"
    if task.get("stopCode") in ("SpotInterruption", "TerminationNotice") or "Spot" in said:
        return "Spot took the task back"
    if task.get("stopCode") in ("UserInitiated", "ServiceSchedulerInitiated"):
        return "the task was stopped"
    if 137 in codes:
        return "killed, out of memory perhaps"
    return f"exit code {codes[0]}" if codes and codes[0] else ""


@flow(
    name="explain-crash",
    description="Write down why a flow run crashed, and the last lines of its log.",
    flow_run_name="{flow_run_id}",
    persist_result=False,
)
def explain_crash(flow_run_id: UUID) -> State[Any]:
    """Say in a crashed flow run's state, and in an artifact of it, why it crashed.

    Args:
        flow_run_id: The flow run that crashed.
    """
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(flow_run_id)
        client.update_flow_run(UUID(str(runtime.flow_run.id)), name=f"why {flow_run.name} crashed")
        crash = investigate(client, flow_run, task_identity().log)
        before = _said_before(client, flow_run)
        client.create_artifact(
            ArtifactCreate(
                key=_ARTIFACT_KEY,
                type="markdown",
                description="Why the run crashed, and its last log lines.",
                data=crash.markdown(before),
                flow_run_id=flow_run.id,
            )
        )
        for line in crash.message(before).splitlines():
            get_run_logger().info(line)
        if flow_run.state_name != PLAIN:
            return Completed(name="Went on", message=f"{flow_run.name} is {flow_run.state_name} by now")
        explained: State[Any] = Crashed(name=crash.state_name, message=crash.message(before))
        client.set_flow_run_state(flow_run.id, explained, force=True)
    return Completed(name="Explained", message=crash.state_name)


def _said_before(client: SyncPrefectClient, flow_run: FlowRun) -> str:
    """What the newest state of the crash says."""
    crashes = [state for state in client.read_flow_run_states(flow_run.id) if state.type is StateType.CRASHED]
    return (crashes[-1].message if crashes else None) or ""


def _task(arn: str) -> dict[str, Any]:
    """Ask ECS about a task; it remembers a stopped one for an hour at least."""
    cluster = arn.rsplit(":task/", 1)[-1].partition("/")[0]
    try:
        found = client_of("ecs").describe_tasks(cluster=cluster, tasks=[arn])["tasks"]
    except (BotoCoreError, ClientError):
        return {}  # not permitted, or away: the last lines are worth having all the same
    return dict(found[0]) if found else {}


def _told(task: dict[str, Any]) -> str:
    """What ECS and prefect-aws's diagnosis say."""
    from prefect_aws.observers.diagnostics import diagnose_ecs_task  # takes 1.5 s: more than a small file

    reasons = [task.get("stoppedReason"), *(box.get("reason") for box in _boxes(task))]
    diagnosis = diagnose_ecs_task(task)
    if diagnosis:
        reasons += [diagnosis.detail, diagnosis.resolution]
    return " ".join(str(reason).rstrip(".") + "." for reason in reasons if reason)


def _boxes(task: dict[str, Any]) -> list[dict[str, Any]]:
    return list(task.get("containers") or [])


def _beside(own_log: TaskLog, task_arn: str) -> TaskLog:
    """The log of another task of this one's definition: the stream's name ends in the task's id."""
    return TaskLog(own_log.group, f"{own_log.stream.rpartition('/')[0]}/{task_arn.rpartition('/')[2]}")


def _log_of(task: dict[str, Any]) -> TaskLog | None:
    """Ask the task's definition where it logs; the task's own role may not, and has no need to."""
    try:
        definition = client_of("ecs").describe_task_definition(taskDefinition=task["taskDefinitionArn"])
        container = definition["taskDefinition"]["containerDefinitions"][0]
        options = container["logConfiguration"]["options"]
        task_id = task["taskArn"].rpartition("/")[2]
        stream = f"{options['awslogs-stream-prefix']}/{container['name']}/{task_id}"
        return TaskLog(options["awslogs-group"], stream)
    except (BotoCoreError, ClientError, KeyError):
        return None


def _lines_in_cloudwatch(log: TaskLog) -> list[str]:
    try:
        events = client_of("logs").get_log_events(
            logGroupName=log.group, logStreamName=log.stream, limit=_LINES, startFromHead=False
        )["events"]
    except (BotoCoreError, ClientError):
        return []
    return [_short(_readable(event["message"])) for event in events][-_LINES:]


def _readable(line: str) -> str:
    """Make of one of our JSON lines (flows/pipeline/json_log.py) a line for people; leave any other as it is."""
    try:
        fields = json.loads(line)
        head = [str(fields.pop("time"))[11:19], str(fields.pop("level")), str(fields.pop("event"))]
    except (ValueError, TypeError, KeyError, AttributeError):
        return line.strip()
    known = ("run_id", "dataset", "stage", "seconds", "status", "error", "exception")
    return " ".join([*head, *(f"{name}={fields[name]}" for name in known if fields.get(name) is not None)])


def _lines_in_prefect(client: SyncPrefectClient, flow_run_id: UUID) -> list[str]:
    newest = client.read_logs(
        LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])), limit=_LINES, sort=LogSort.TIMESTAMP_DESC
    )
    return [_short(f"{log.timestamp:%H:%M:%S} {log.message}") for log in reversed(newest)]


def _short(line: str) -> str:
    line = " ".join(line.split())
    return line if len(line) <= _LINE_CHARACTERS else line[: _LINE_CHARACTERS - 1] + "…"
