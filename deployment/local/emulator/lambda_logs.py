"""Keeps every line of a function, and writes Lambda's own as JSON where its LogFormat says so.

MiniStack waits 50 ms for what a function wrote: on a busy machine lines are lost, or found in the log of the next
invocation. And of Lambda's own lines it knows the text form only.

The forms: docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html and, for an exception of the handler,
docs.aws.amazon.com/lambda/latest/dg/python-logging.html
"""

from __future__ import annotations

import json
import queue
import re
import time
from datetime import UTC, datetime
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import cloudwatch_logs, lambda_svc

_TRACEBACK = "Traceback (most recent call last):"
_REPORT = re.compile(
    r"Duration: (?P<duration>\d+) ms.*Memory Size: (?P<size>\d+) MB.*Max Memory Used: (?P<used>\d+) MB"
)

_END = "-- all that this invocation said --"
_ANSWER_SENT = "        _real_stdout.flush()\n\nrun()\n"
_END_DEADLINE_SECONDS = 60.0


def install() -> None:
    """Replace how MiniStack collects and words what it logs of an invocation."""
    _keep_every_line()
    emit = lambda_svc._emit_lambda_logs

    def emit_as_asked(func: dict[str, Any], request_id: str, text: str, error: bool, *rest: Any, **more: Any) -> None:
        emit(func, request_id, text, error, *rest, **more)
        logging_config = (func.get("config") or func).get("LoggingConfig") or {}
        if logging_config.get("LogFormat") == "JSON":
            _reword(logging_config["LogGroup"], request_id, failed=error)

    lambda_svc._emit_lambda_logs = emit_as_asked


def _keep_every_line() -> None:
    """Let Python's workers say where the lines of an invocation end, and read to there."""
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(_ANSWER_SENT) != 1:
        raise RuntimeError("this release of MiniStack answers for a function in another way than lambda_logs.py knows")
    mark = f'        print("{_END}", file=sys.stderr, flush=True)\n'
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_ANSWER_SENT, mark + _ANSWER_SENT)
    wait_a_moment = lambda_runtime.Worker._drain_stderr_bounded

    def collect(worker: Any, **waits: float) -> str:
        python = str(worker.config.get("Runtime", "")).startswith("python")
        return _lines_to_the_end(worker) if python else wait_a_moment(worker, **waits)

    lambda_runtime.Worker._drain_stderr_bounded = collect


def _lines_to_the_end(worker: Any) -> str:
    lines: list[str] = []
    deadline = time.monotonic() + _END_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        told_all = not worker._stderr_thread.is_alive()  # the process died, and its pipe was read to the end
        try:
            line = worker._stderr_queue.get(timeout=0.05)
        except queue.Empty:
            if told_all:
                break
            continue
        if line == _END:
            break
        lines.append(line)
    return "\n".join(lines)


def _reword(group: str, request_id: str, *, failed: bool) -> None:
    for stream in reversed(list(cloudwatch_logs._log_groups[group]["streams"].values())):
        events = stream["events"]
        if events and events[0]["message"].startswith(f"START RequestId: {request_id}"):
            lines = _with_one_line_for_a_traceback([event["message"] for event in events], request_id)
            stream["events"] = [
                event | {"message": _as_json(line, event["timestamp"], request_id, failed=failed)}
                for event, line in zip(events, lines, strict=False)
            ]
            return


def _with_one_line_for_a_traceback(lines: list[str], request_id: str) -> list[str]:
    """The handler's exception follows what the handler itself logged, before Lambda's last two lines."""
    if _TRACEBACK not in lines:
        return lines
    begin, end = lines.index(_TRACEBACK), len(lines) - 2
    kind, _, message = lines[end - 1].partition(": ")
    told = {
        "log_level": "ERROR",
        "errorType": kind.rpartition(".")[2],
        "errorMessage": message,
        "requestId": request_id,
        "stackTrace": lines[begin + 1 : end - 1],
    }
    return [*lines[:begin], json.dumps(told), *lines[end:]]


def _as_json(line: str, timestamp_ms: int, request_id: str, *, failed: bool) -> str:
    record: dict[str, Any] = {"requestId": request_id}
    if line.startswith("START RequestId: "):
        kind = "platform.start"
        record["version"] = line.rpartition(" ")[2]
    elif line.startswith("END RequestId: "):
        kind = "platform.runtimeDone"
        record["status"] = "failure" if failed else "success"
    elif line.startswith("REPORT RequestId: ") and (told := _REPORT.search(line)):
        kind = "platform.report"
        record["status"] = "failure" if failed else "success"
        record["metrics"] = {
            "durationMs": int(told["duration"]),
            "memorySizeMB": int(told["size"]),
            "maxMemoryUsedMB": int(told["used"]),
        }
    else:
        return line
    time = datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "type": kind, "record": record})
