"""Logs as one JSON line per event, which CloudWatch Logs Insights can query by field."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_QUIET = ("httpx", "httpcore", "botocore", "urllib3", "great_expectations", "alembic", "aiosqlite", "asyncio")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON; `extra={"fields": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = getattr(record, "fields", None)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **(fields if isinstance(fields, dict) else {}),
        }
        flow_run_id = getattr(record, "flow_run_id", None)
        if flow_run_id:
            line["flow_run_id"] = str(flow_run_id)
        if record.exc_info and record.exc_info[0]:
            # The type only: an exception's text may quote data.
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line, default=str, ensure_ascii=False)


def log_json_lines(level: int = logging.INFO) -> None:
    """Send all logs of this process to standard output as JSON lines, Prefect's own console lines included."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    _take_over_console_of_prefect()


def _take_over_console_of_prefect() -> None:
    """Replace Prefect's console handlers; the handler that sends logs to its API stays."""
    from prefect.logging.handlers import PrefectConsoleHandler

    for name in [None, *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        console = [handler for handler in logger.handlers if isinstance(handler, PrefectConsoleHandler)]
        for handler in console:
            logger.removeHandler(handler)
        if console:
            logger.propagate = True
