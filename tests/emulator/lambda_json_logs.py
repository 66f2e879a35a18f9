"""Writes Lambda's own log lines as JSON if the function's LogFormat is JSON. MiniStack always writes plain text.

The formats are described in docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html and, for an exception
that the handler raises, in docs.aws.amazon.com/lambda/latest/dg/python-logging.html
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ministack.services import cloudwatch_logs, lambda_svc

_TRACEBACK = "Traceback (most recent call last):"
_REPORT = re.compile(
    r"Duration: (?P<duration>\d+) ms.*Memory Size: (?P<size>\d+) MB.*Max Memory Used: (?P<used>\d+) MB"
)


def install(_state: Path) -> None:
    """Rewrite the log of each invocation after MiniStack has written it, if the function's LogFormat is JSON."""
    emit = lambda_svc._emit_lambda_logs

    def emit_in_format(func: dict[str, Any], request_id: str, text: str, error: bool, *rest: Any, **more: Any) -> None:
        emit(func, request_id, text, error, *rest, **more)
        logging_config = (func.get("config") or func).get("LoggingConfig") or {}
        if logging_config.get("LogFormat") == "JSON":
            _rewrite(logging_config["LogGroup"], request_id, failed=error)

    lambda_svc._emit_lambda_logs = emit_in_format


def _rewrite(group: str, request_id: str, *, failed: bool) -> None:
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
    """Return the lines with the handler's exception, which precedes Lambda's last two lines, as one line of JSON."""
    if _TRACEBACK not in lines:
        return lines
    begin, end = lines.index(_TRACEBACK), len(lines) - 2
    kind, _, message = lines[end - 1].partition(": ")
    line = {
        "log_level": "ERROR",
        "errorType": kind.rpartition(".")[2],
        "errorMessage": message,
        "requestId": request_id,
        "stackTrace": lines[begin + 1 : end - 1],
    }
    return [*lines[:begin], json.dumps(line), *lines[end:]]


def _as_json(line: str, timestamp_ms: int, request_id: str, *, failed: bool) -> str:
    record: dict[str, Any] = {"requestId": request_id}
    if line.startswith("START RequestId: "):
        kind = "platform.start"
        record["version"] = line.rpartition(" ")[2]
    elif line.startswith("END RequestId: "):
        kind = "platform.runtimeDone"
        record["status"] = "failure" if failed else "success"
    elif line.startswith("REPORT RequestId: ") and (report := _REPORT.search(line)):
        kind = "platform.report"
        record["status"] = "failure" if failed else "success"
        record["metrics"] = {
            "durationMs": int(report["duration"]),
            "memorySizeMB": int(report["size"]),
            "maxMemoryUsedMB": int(report["used"]),
        }
    else:
        return line
    time = datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "type": kind, "record": record})
