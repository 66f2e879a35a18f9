"""Writes logs as one JSON line per event, which CloudWatch Logs Insights can query by field.

All output of the process becomes such lines: logs (including Prefect's), Python warnings, printed text, and exceptions
that end a thread or the process. Exceptions, warnings and printed text may quote data, so their text is not logged. The
lines contain only metadata, such as an exception's type and location.
"""

import io
import json
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

LOG = logging.getLogger("sluice.log")

_QUIET = ("httpx", "httpcore", "botocore", "urllib3", "great_expectations", "alembic", "aiosqlite", "asyncio")
_FRAMES_SHOWN = 4
_NOTHING: Mapping[str, Any] = MappingProxyType({})

_CONTEXT: ContextVar[Mapping[str, Any]] = ContextVar("log context", default=_NOTHING)


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Add these fields, except those that are None, to every log line that is written within the block."""
    token = _CONTEXT.set({**_CONTEXT.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def place_of(trace: TracebackType | None) -> str:
    """Return where an exception was raised: up to four frames, innermost first, as "file:line function < ..."."""
    frames = traceback.extract_tb(trace)
    return " < ".join(
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-_FRAMES_SHOWN:])
    )


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON. `extra={"fields": {...}}` in a logging call adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line = {
            **_heading(datetime.fromtimestamp(record.created, UTC), record.levelname, record.name, record.getMessage()),
            **_CONTEXT.get(),
            **(fields if isinstance(fields, dict) else {}),
        }
        flow_run_id = getattr(record, "flow_run_id", None)
        if flow_run_id:
            line["flow_run_id"] = str(flow_run_id)
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["place"] = place_of(record.exc_info[2])
        return json.dumps(line, default=str, ensure_ascii=False)


def _heading(time: datetime, level: str, logger: str, event: str) -> dict[str, str]:
    """Return the fields that every log line has."""
    return {"time": time.isoformat(timespec="milliseconds"), "level": level, "logger": logger, "event": event}


class RedactedStream(io.TextIOBase):
    """A replacement for standard output or standard error. It logs that text was printed, but not the text, because the
    output of a dataset's custom step is usually data."""

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str, /) -> int:
        """Log that text was printed, and how long it was. Ignore blank text, because `print` writes line ends
        separately."""
        if text.strip():
            fields = {"stream": self._name, "characters": len(text)}
            LOG.warning("something was printed; its text is left out, as it may quote data", extra={"fields": fields})
        return len(text)


def print_line(logger: str, event: str, fields: Mapping[str, Any]) -> None:
    """Print a JSON line to standard output, regardless of the log level, without the fields added by `log_context`.
    `fields` must not contain values from the data."""
    line = {**_heading(datetime.now(UTC), "INFO", logger, event), **fields}
    stream = sys.__stdout__ or sys.stdout
    stream.write(f"{json.dumps(line)}\n")
    stream.flush()


def log_json_lines() -> None:
    """Send all output of this process, including Prefect's console log, to standard output as JSON lines."""
    handler = logging.StreamHandler(sys.__stdout__ or sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    _replace_console_handlers()
    _log_what_python_prints()


def _replace_console_handlers() -> None:
    """Remove the console handlers of libraries such as Prefect, so that their lines reach the root handler. Keep
    handlers that send logs elsewhere, such as to Prefect's API."""
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
                logger.propagate = True


def _log_what_python_prints() -> None:
    warnings.showwarning = _log_warning
    sys.excepthook = lambda kind, _, trace: _log_exception("ended by an unexpected exception", kind, trace)
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = lambda args: _log_exception(
        "an exception that could not be raised", args.exc_type, args.exc_traceback
    )
    sys.stdout, sys.stderr = RedactedStream("stdout"), RedactedStream("stderr")


def _log_warning(
    message: Warning | str,  # noqa: ARG001 (its text may quote data)
    category: type[Warning],
    filename: str,
    lineno: int,
    *_: Any,
    **__: Any,
) -> None:
    fields = {"warning": category.__name__, "place": f"{Path(filename).name}:{lineno}"}
    LOG.warning("Python warning", extra={"fields": fields})


def _log_exception(event: str, kind: type[BaseException] | None, trace: TracebackType | None, **fields: Any) -> None:
    about = {"exception": kind.__name__ if kind else None, "place": place_of(trace), **fields}
    LOG.error(event, extra={"fields": about})


def _log_end_of_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else None
    _log_exception("a thread ended by an unexpected exception", args.exc_type, args.exc_traceback, thread=name)
