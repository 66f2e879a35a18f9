"""Everything that a task prints or logs becomes a line of JSON, without values from the data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SECRET = "s3cr3tXyzzy"
_SAYS_EVERYTHING = f"""
import logging, sys, threading, warnings
import prefect
from flows.pipeline.json_log import log_context, log_json_lines

class Dropped:
    def __del__(self):
        raise ValueError("{SECRET}")

def fail():
    raise ValueError("{SECRET}")

log_json_lines()
with log_context(run_id="r-1", dataset=None):
    logging.getLogger("anybody").warning("logged")
    print("{SECRET}")
    print("{SECRET}", file=sys.stderr)
    warnings.warn("{SECRET}")
    try:
        fail()
    except ValueError:
        logging.getLogger("anybody").exception("failed")
logging.getLogger("prefect.flow_runs").info("by Prefect")
thread = threading.Thread(target=fail, name="a-thread")
thread.start()
thread.join()
Dropped()
fail()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path_factory.mktemp("home"))}
    ended = subprocess.run(
        [sys.executable, "-c", _SAYS_EVERYTHING], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert ended.stderr == ""
    return ended.stdout, [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.heavy
def test_warnings_prints_tracebacks_and_lines_of_prefect_become_json_without_data(
    said: tuple[str, list[dict[str, Any]]],
) -> None:
    text, lines = said
    assert SECRET not in text
    assert all({"time", "level", "logger", "event"} <= set(line) for line in lines)
    assert [line["event"] for line in lines] == [
        "logged",
        "something was printed; its text is left out, as it may quote data",
        "something was printed; its text is left out, as it may quote data",
        "Python warning",
        "failed",
        "by Prefect",
        "a thread ended by an unexpected exception",
        "an exception that could not be raised",
        "ended by an unexpected exception",
    ]
    assert [line.get("stream") for line in lines[1:3]] == ["stdout", "stderr"]
    assert {line["exception"] for line in (lines[4], *lines[6:])} == {"ValueError"}
    assert all(line["place"] for line in (*lines[3:5], *lines[6:]))


def test_the_fields_of_a_log_context_are_on_every_line_of_its_block_and_on_no_other(
    said: tuple[str, list[dict[str, Any]]],
) -> None:
    _, lines = said
    assert [line.get("run_id") for line in lines] == ["r-1"] * 5 + [None] * 4
    assert not any("dataset" in line for line in lines)
