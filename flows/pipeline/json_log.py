"""Logs as one JSON line per event, which CloudWatch Logs Insights can query by field.

Everything that the process says becomes such a line: logs, Prefect's own among them, Python's warnings, what somebody
prints, and the exception that ends a thread or the process. Texts that nobody of Sluice wrote may quote data, so of
exceptions, warnings and printed text only the kind and the place are logged.
"""

from __future__ import annotations

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
from typing import Any, TextIO

LOG = logging.getLogger("sluice.log")

_QUIET = ("httpx", "httpcore", "botocore", "urllib3", "great_expectations", "alembic", "aiosqlite", "asyncio")
_FRAMES_SHOWN = 4
_NOTHING: Mapping[str, Any] = MappingProxyType({})

_ABOUT: ContextVar[Mapping[str, Any]] = ContextVar("about", default=_NOTHING)


@contextmanager
def lines_about(**fields: Any) -> Iterator[None]:
    """Let every line that is logged inside the block have these fields, whoever logs it; those that are None are left
    out."""
    token = _ABOUT.set({**_ABOUT.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def place_of(trace: TracebackType | None) -> str:
    """Return where an exception came from, innermost frame first."""
    frames = traceback.extract_tb(trace)
    return " < ".join(
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-_FRAMES_SHOWN:])
    )


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
            **_ABOUT.get(),
            **(fields if isinstance(fields, dict) else {}),
        }
        flow_run_id = getattr(record, "flow_run_id", None)
        if flow_run_id:
            line["flow_run_id"] = str(flow_run_id)
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["place"] = place_of(record.exc_info[2])
        return json.dumps(line, default=str, ensure_ascii=False)


class Printed:
    """Stands for standard output or standard error: says that something was printed, and not what.

    What a dataset's own step prints is as a rule the data itself.
    """

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        """Args:
        name: of the stream.
        """
        self._name = name

    def write(self, text: str) -> int:
        """Log that there was a text; line ends, which `print` writes by themselves, are none."""
        if text.strip():
            fields = {"stream": self._name, "characters": len(text)}
            LOG.warning("something was printed; its text is left out, as it may quote data", extra={"fields": fields})
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """It is no terminal."""
        return False


def log_json_lines(level: int = logging.INFO) -> None:
    """Send whatever this process says to standard output as JSON lines, Prefect's own console lines included."""
    handler = logging.StreamHandler(_real_output())
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    _take_over_console_of_prefect()
    _take_over_what_python_says()


def _real_output() -> TextIO:
    return sys.__stdout__ or sys.stdout


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


def _take_over_what_python_says() -> None:
    warnings.showwarning = _log_warning
    sys.excepthook = _log_end_of_process
    threading.excepthook = _log_end_of_thread
    sys.unraisablehook = _log_unraisable
    sys.stdout, sys.stderr = Printed("stdout"), Printed("stderr")


def _log_warning(
    message: Warning | str,  # noqa: ARG001 (its text may quote data)
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 (the signature of warnings.showwarning)
    line: str | None = None,  # noqa: ARG001
) -> None:
    fields = {"warning": category.__name__, "place": f"{Path(filename).name}:{lineno}"}
    LOG.warning("Python warns", extra={"fields": fields})


def _log_exception(event: str, kind: type[BaseException] | None, trace: TracebackType | None, **fields: Any) -> None:
    about = {"exception": kind.__name__ if kind else None, "place": place_of(trace), **fields}
    LOG.error(event, extra={"fields": about})


def _log_end_of_process(kind: type[BaseException], _error: BaseException, trace: TracebackType | None) -> None:
    _log_exception("ended by an exception that nobody foresaw", kind, trace)


def _log_end_of_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else None
    _log_exception("a thread ended by an exception that nobody foresaw", args.exc_type, args.exc_traceback, thread=name)


def _log_unraisable(args: sys.UnraisableHookArgs) -> None:
    _log_exception("an exception that could not be raised", args.exc_type, args.exc_traceback)
