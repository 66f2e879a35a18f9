"""Finds out why a flow run crashed, from what ECS reports about its task and from the last lines that it logged.

A process that is killed cannot report this itself. The task that takes over the upload does so, or the explain-crash
flow (flows/explain_crash.py).
"""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import LogSort

from blocks.aws import client_of
from flows.observability.run_identity import TASK_LABEL
from flows.observability.run_summary import escape_markdown
from flows.pipeline.dead_tasks import TaskEnd
from flows.pipeline.job import TaskLog
from flows.refinery.words import shortened

OUT_OF_MEMORY, PERHAPS_OUT_OF_MEMORY = "out of memory", "killed, perhaps out of memory"
_LINES = 12
_LINE_CHARACTERS = 300
EXPLAINED = "Explained: "
"""The beginning of the state message of an explained crash. The automation that explains crashes ignores such runs."""


@dataclass(frozen=True, slots=True)
class Crash:
    """What is known about the crash of a flow run."""

    cause: str = ""  # a few words
    reported: str = ""  # what ECS reports, in sentences; empty if it reports nothing
    lines: tuple[str, ...] = ()  # the last lines of the log, oldest first

    @property
    def summary(self) -> str:
        return self.cause or "killed"

    def explanation(self, before: str) -> str:
        """Return the state message of an explained crash. `before` is the message that the state had before."""
        return f"{EXPLAINED}{self.summary}.\n{self.message(before)}"

    def message(self, before: str) -> str:
        """Return several lines of text: `before`, then what ECS reports, then the last log lines."""
        last = "\n".join(["Its last log lines:", *self.lines]) if self.lines else "It logged nothing."
        return "\n".join(part for part in (before, self.reported, last) if part)

    def markdown(self, before: str) -> str:
        lines = "\n".join(line.replace("`", "'") for line in self.lines) or "(none)"
        # Both may quote log lines, which may contain file names.
        texts = [escape_markdown(text) for text in (before, self.reported) if text]
        return "\n\n".join([f"## Crashed: {self.summary}", *texts, "### Last log lines", f"```\n{lines}\n```"])


def investigate(client: SyncPrefectClient, flow_run: FlowRun, own_log: TaskLog | None) -> Crash:
    """Return what ECS and the log report about the crash of `flow_run`. AWS errors are ignored. The log is read from
    CloudWatch Logs or, if it has no lines there, from Prefect.

    Args:
        own_log: this process's log, if this process runs in a task of the same stack as the crashed one. The name of
            the crashed task's log stream then differs only in the task ID. If `own_log` is None, the log stream is
            looked up in the task definition.
    """
    task_arn = task_of_run(flow_run)
    task = _task(task_arn) if task_arn else {}
    log = (_log_in_stack(own_log, task_arn) if own_log else _log_of(task)) if task_arn else None
    lines = _lines_in_cloudwatch(log) if log else []
    return Crash(cause_of(task), _reported(task) if task else "", tuple(lines or lines_in_prefect(client, flow_run.id)))


def infrastructure_of(task_arn: str) -> str:
    """Return the `infrastructure_pid` that prefect-aws records for an ECS task: CLUSTER::TASK_ARN."""
    return f"{task_arn.rsplit(':task/', 1)[-1].partition('/')[0]}::{task_arn}"


def task_of_run(flow_run: FlowRun) -> str | None:
    """Return the ARN of a flow run's ECS task, or None if it is unknown. A worker records the ARN in the run's
    `infrastructure_pid`, and a task that drains the queue records it in a label."""
    label = flow_run.labels.get(TASK_LABEL)
    return task_of(flow_run.infrastructure_pid) or (str(label) if label else None)


def task_of(infrastructure_pid: str | None) -> str | None:
    """Return the ARN of the ECS task that an `infrastructure_pid` names, or None if it does not name one."""
    arn = (infrastructure_pid or "").rpartition("::")[2]
    return arn if ":task/" in arn else None


def cause_of(task: dict[str, Any]) -> str:
    """Return in a few words why an ECS task stopped, according to ECS, or "" if ECS reports no cause.

    AWS lists the reasons and codes at
    docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html

    Args:
        task: the task, as ECS's DescribeTasks returns it.
    """
    reason = " ".join(
        [task.get("stoppedReason") or "", *(container.get("reason") or "" for container in _containers(task))]
    )
    codes = [container["exitCode"] for container in _containers(task) if container.get("exitCode") is not None]
    if "OutOfMemory" in reason:
        return OUT_OF_MEMORY
    if task.get("stopCode") in ("SpotInterruption", "TerminationNotice") or "Spot" in reason:
        return "AWS reclaimed the Fargate Spot capacity"
    if task.get("stopCode") in ("UserInitiated", "ServiceSchedulerInitiated"):
        return "the task was stopped"
    if 137 in codes:
        return PERHAPS_OUT_OF_MEMORY
    return f"exit code {codes[0]}" if codes and codes[0] else ""


def end_of_task(arn: str) -> TaskEnd | None:
    """Return whether and how the task with this ARN ended, according to ECS, or None if ECS has no record of the task
    or the call fails."""
    task = _task(arn)
    if not task:
        return None
    cause = cause_of(task)
    memory = str(task.get("memory") or "")
    return TaskEnd(
        is_over=task.get("lastStatus") == "STOPPED",
        cause=cause,
        lacked_memory=cause in (OUT_OF_MEMORY, PERHAPS_OUT_OF_MEMORY),
        memory_mib=int(memory) if memory.isdigit() else None,
    )


def _task(arn: str) -> dict[str, Any]:
    """Return ECS's description of a task, or an empty dictionary if it is unavailable. ECS keeps a stopped task for at
    least an hour."""
    cluster = arn.rsplit(":task/", 1)[-1].partition("/")[0]
    try:
        found = client_of("ecs").describe_tasks(cluster=cluster, tasks=[arn])["tasks"]
    except (BotoCoreError, ClientError):
        return {}  # not permitted, or unavailable: the last log lines are useful without it
    return dict(found[0]) if found else {}


def _reported(task: dict[str, Any]) -> str:
    """Return, as sentences, the reasons that ECS gives for the end of a task, and prefect-aws's diagnosis."""
    from prefect_aws.observers.diagnostics import diagnose_ecs_task  # takes 1.5 s, longer than a small file

    reasons = [task.get("stoppedReason"), *(container.get("reason") for container in _containers(task))]
    diagnosis = diagnose_ecs_task(task)
    if diagnosis:
        reasons += [diagnosis.detail, diagnosis.resolution]
    return " ".join(str(reason).rstrip(".") + "." for reason in reasons if reason)


def _containers(task: dict[str, Any]) -> list[dict[str, Any]]:
    return list(task.get("containers") or [])


def _log_in_stack(own_log: TaskLog, task_arn: str) -> TaskLog:
    """Return the log of a different task of the same stack. The names of their log streams differ only in the task
    ID."""
    return TaskLog(own_log.group, f"{own_log.stream.rpartition('/')[0]}/{task_arn.rpartition('/')[2]}")


def _log_of(task: dict[str, Any]) -> TaskLog | None:
    """Return where a task logs, according to its task definition, or None if the task definition cannot be read. A
    task of the stack has no permission to read it, and uses `_log_in_stack` instead."""
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
    return [_line(_readable(event["message"])) for event in events][-_LINES:]


def _readable(line: str) -> str:
    """Return one of Sluice's JSON log lines (flows/pipeline/json_log.py) in a readable form. Return any other line
    without changes."""
    try:
        fields = json.loads(line)
        head = [str(fields.pop("time"))[11:19], str(fields.pop("level")), str(fields.pop("event"))]
    except (ValueError, TypeError, KeyError, AttributeError):
        return line.strip()
    known = ("run_id", "dataset", "stage", "seconds", "status", "error", "exception")
    return " ".join([*head, *(f"{name}={fields[name]}" for name in known if fields.get(name) is not None)])


def lines_in_prefect(client: SyncPrefectClient, flow_run_id: UUID) -> list[str]:
    """Return the last log lines that Prefect has for a flow run. This takes one request."""
    newest = client.read_logs(
        LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])), limit=_LINES, sort=LogSort.TIMESTAMP_DESC
    )
    return [_line(f"{log.timestamp:%H:%M:%S} {log.message}") for log in reversed(newest)]


def _line(text: str) -> str:
    return shortened(" ".join(text.split()), _LINE_CHARACTERS)
