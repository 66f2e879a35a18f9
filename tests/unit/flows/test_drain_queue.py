"""The container's entry point reads the right settings and returns the right exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from http.client import IncompleteRead
from io import BytesIO
from pathlib import Path

import pytest

from blocks.settings import SettingsMissing
from flows import drain_queue
from flows.composition import task_identity
from flows.drain_queue import EXIT_MISCONFIGURED, EXIT_MORE_TO_DO, EXIT_STOPPED, main
from flows.pipeline.stopping import Stopped
from flows.refinery.errors import TransientError
from tests.looking import looks
from tests.unit.flows.conftest import Account


class Ending:
    """A fake drain that ends with the given result or exception."""

    def __init__(self, end: bool | BaseException) -> None:
        self._end = end

    def run(self) -> bool:
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end

    def end(self) -> None:
        """Do nothing, because the fake drain has no flow run to end."""


@pytest.mark.parametrize(
    ("end", "code"),
    [(True, 0), (False, EXIT_MORE_TO_DO), (Stopped(), EXIT_STOPPED), (TransientError("no queue"), EXIT_MORE_TO_DO)],
)
def test_the_exit_code_shows_whether_everything_is_done(
    account: Account, monkeypatch: pytest.MonkeyPatch, end: bool | BaseException, code: int
) -> None:
    monkeypatch.setattr(drain_queue, "parts_of_environment", lambda: account.parts)
    left: list[int] = []
    monkeypatch.setattr(drain_queue, "drain_of", lambda _: (Ending(end), Ending(end)))
    monkeypatch.setattr(drain_queue, "_leave_soon", left.append)
    monkeypatch.setattr(drain_queue, "log_json_lines", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main() == code
    assert left == [code], "the process ends soon, whatever Prefect does"


def test_a_process_that_cannot_end_its_flow_run_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(drain_queue, "_LEAVE_SECONDS", 0)
    drain_queue._leave_soon(EXIT_MORE_TO_DO)
    assert any(ended for _ in looks(10))
    assert ended == [EXIT_MORE_TO_DO]


def test_a_task_ends_when_its_time_is_over_and_returns_its_messages(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    account.send("a")
    account.parts.queue.receive(wait_seconds=0)
    monkeypatch.setattr(type(account.parts.settings), "task_limit_seconds", 0)
    monkeypatch.setattr(os, "_exit", ended.append)
    drain_queue._end_later(account.parts)
    assert any(ended for _ in looks(10))
    assert ended == [EXIT_MORE_TO_DO]
    assert account.parts.queue.count_waiting() == 1


def test_the_environment_of_a_task_sets_until_when_it_stays() -> None:
    task = task_identity({"SLUICE_STAY_UNTIL": "1764400000", "SLUICE_EXECUTION_ARN": "arn:drain"})
    assert (task.stay_until, task.execution_arn) == (1_764_400_000, "arn:drain")
    assert task_identity({}).stay_until == 0


def test_a_time_to_stay_that_is_not_a_number_is_reported_by_its_variable() -> None:
    with pytest.raises(SettingsMissing) as error:
        task_identity({"SLUICE_STAY_UNTIL": "noon"})
    assert error.value.names == ("SLUICE_STAY_UNTIL",)


def test_a_task_with_incomplete_ecs_metadata_has_no_arn_and_a_unique_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class BrokenOff(BytesIO):
        def read(self, *_: object) -> bytes:
            raise IncompleteRead(b'{"TaskARN"')

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: BrokenOff())
    task = task_identity({"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4"})
    assert task.task_arn is None
    assert task.name == task.name != task_identity({}).name


@pytest.mark.heavy
def test_a_task_without_settings_names_them_in_one_json_line_and_exits_with_2(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SLUICE_PUBLISHED_BUCKET": "published"}
    task = subprocess.run(
        [sys.executable, "-m", "flows.drain_queue"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert task.returncode == EXIT_MISCONFIGURED
    line = json.loads(task.stdout)
    assert line["event"] == "misconfigured"
    assert "SLUICE_LANDING_BUCKET" in line["error"]


def test_a_task_that_waits_for_its_first_message_imports_gx_meanwhile(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = threading.Event()
    monkeypatch.setattr(drain_queue, "gx", imported.set)
    monkeypatch.setattr(account.parts.queue, "receive", lambda **_: [] if imported.wait(30) else ["never imported"])
    drain, _ = drain_queue.drain_of(account.parts)
    assert drain._receive()[1] == []


def test_a_message_that_waits_for_the_task_is_received_before_it_imports_gx(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[None] = []
    monkeypatch.setattr(drain_queue, "gx", lambda: imported.append(None))
    monkeypatch.setattr(drain_queue, "_AT_ONCE_SECONDS", 30)
    account.send("a")
    drain, _ = drain_queue.drain_of(account.parts)
    assert len(drain._receive()[1]) == 1
    for thread in threading.enumerate():
        if thread.name == "imports":
            thread.join(30)
    assert not imported
