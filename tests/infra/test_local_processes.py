"""Tests that no process is left behind, whichever process dies, that unrelated processes are left alone, and that ports
and state folders are not shared."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from deployment import PROJECT_ROOT
from deployment.commands.clean import clean
from deployment.local import ports
from deployment.local.cloud import LocalCloud
from deployment.local.errors import LocalCloudBusy, PortTaken, ServiceDied, ServiceNotReady, StateOutdated
from deployment.local.processes import end_leftovers, recorded, remember, start_of
from deployment.local.services import Service
from deployment.local.state_lock import StateLock
from deployment.local.state_version import claim_state
from deployment.project_commands import CommandFailed, run_command

_SLEEP = [sys.executable, "-c", "print('asleep', flush=True); import time; time.sleep(60)"]


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def service(folder: Path, command: list[str] = _SLEEP, grace_seconds: float = 5) -> Service:
    return Service(
        name="sleeper",
        command=command,
        environment={"PATH": os.environ["PATH"]},
        log_path=folder / "sleeper.log",
        records=folder / "processes",
        grace_seconds=grace_seconds,
    )


def started(folder: Path, command: list[str] = _SLEEP, grace_seconds: float = 5) -> tuple[Service, int]:
    """Return a running service and its process ID."""
    one = service(folder, command, grace_seconds)
    one.start()
    one.wait_until(lambda: one.pid is not None and "asleep" in one.log_path.read_text(), 20)
    assert one.pid is not None
    return one, one.pid


def test_a_stopped_service_is_gone_and_so_is_its_record(tmp_path: Path) -> None:
    one, pid = started(tmp_path)
    one.stop()
    assert start_of(pid) is None
    assert recorded(tmp_path / "processes") == []


def test_a_service_that_ignores_sigterm_is_killed_after_its_grace_period(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('asleep', flush=True); time.sleep(60)"
    one, pid = started(tmp_path, [sys.executable, "-c", code], grace_seconds=0.3)
    one.stop()
    assert start_of(pid) is None


def test_a_service_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    starter = f"""
import os, signal
from pathlib import Path
from tests.infra.test_local_processes import started
started(Path({str(tmp_path)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", starter], cwd=PROJECT_ROOT, timeout=60)
    assert died.returncode == -signal.SIGKILL
    until(lambda: recorded(tmp_path / "processes") == [])


def test_a_service_whose_keeper_is_killed_too_is_ended_by_the_next_run(tmp_path: Path) -> None:
    one, pid = started(tmp_path)
    assert one._keeper is not None
    one._keeper.kill()
    one._keeper.wait()
    assert start_of(pid) is not None
    assert [record.what for record in end_leftovers(tmp_path / "processes")] == ["sleeper"]
    assert start_of(pid) is None
    assert recorded(tmp_path / "processes") == []


def test_an_unrelated_process_with_a_recorded_process_id_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        remember(tmp_path, bystander.pid, "ours, it was")
        record = tmp_path / f"{bystander.pid}.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"started": "at another time"}))
        assert end_leftovers(tmp_path) == []
        assert bystander.poll() is None
        assert not record.exists()
    finally:
        bystander.kill()
        bystander.wait()


def test_a_zombie_counts_as_gone(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    remember(tmp_path, child.pid, "short")
    until(lambda: start_of(child.pid) is None)
    assert recorded(tmp_path) == []
    child.wait()


def test_a_service_that_dies_while_starting_shows_the_end_of_its_log(tmp_path: Path) -> None:
    one = service(tmp_path, [sys.executable, "-c", "print('no database'); raise SystemExit(5)"])
    one.start()
    with pytest.raises(ServiceDied, match=r"(?s)\b5\b.*no database"):
        one.wait_until(lambda: False, 20)


def test_a_service_that_is_never_ready_is_an_error_at_the_deadline(tmp_path: Path) -> None:
    one, pid = started(tmp_path)
    with pytest.raises(ServiceNotReady, match="asleep"):
        one.wait_until(lambda: False, 0.2)
    one.stop()
    assert start_of(pid) is None


def test_a_service_started_where_sigint_is_ignored_still_handles_it(tmp_path: Path) -> None:
    code = (
        "import signal; print('asleep', signal.getsignal(2) is signal.default_int_handler, flush=True); signal.pause()"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        one, _ = started(tmp_path, [sys.executable, "-c", code])
    finally:
        signal.signal(signal.SIGINT, before)
    assert "asleep True" in one.log_path.read_text()
    one.stop()


# --- the project's own commands -----------------------------------------------------------------------------


def command(code: str, timeout_seconds: float = 20) -> str:
    return run_command(["python", "-c", code], {"PATH": os.environ["PATH"]}, timeout_seconds)


def test_a_commands_output_is_returned_and_its_whole_environment_is_the_given_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    output = command("import os, sys; print(sys.executable, os.environ.get('AWS_PROFILE'))")
    assert output.split() == [sys.executable, "None"]


def test_a_command_that_fails_shows_the_end_of_its_output() -> None:
    with pytest.raises(CommandFailed, match=r"(?s)\b4\b.*no such block") as failed:
        command("print('fir' + 'st'); print('\\n' * 40); print('no such block'); raise SystemExit(4)")
    assert "first" not in str(failed.value)


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    number = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(number)!r}).write_text(str(os.getpid())); time.sleep(60)"
    with pytest.raises(CommandFailed, match="2 seconds"):
        command(code, timeout_seconds=2)
    assert start_of(int(number.read_text())) is None


# --- ports and the state folder -----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 (other programs may listen there)
def test_a_port_that_somebody_listens_on_is_not_free(address: str) -> None:
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.choose(None, [port], "a test") != port
        with pytest.raises(PortTaken, match=str(port)):
            ports.choose(port, [], "a test")
    assert ports.choose(port, [], "a test") == port


def test_a_state_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = StateLock(tmp_path), StateLock(tmp_path)
    assert not second.is_taken()
    first.acquire()
    assert second.is_taken()
    with pytest.raises(LocalCloudBusy, match=str(os.getpid())):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_the_state_of_the_same_minor_version_is_used_again(tmp_path: Path) -> None:
    claim_state(tmp_path, "0.2.0")
    (tmp_path / "cloud.json").touch()
    claim_state(tmp_path, "0.2.1")


@pytest.mark.parametrize("marker", ["0.0\n", None])
def test_the_state_of_another_version_is_rejected_and_can_be_cleaned(tmp_path: Path, marker: str | None) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "cloud").mkdir()
    if marker:
        (tmp_path / "version").write_text(marker)
    with pytest.raises(StateOutdated) as refused:
        LocalCloud(tmp_path, with_prefect=False).start()
    assert f"sluice clean --state {tmp_path}" in str(refused.value)
    clean(Console(quiet=True), tmp_path, cache_too=False)
    assert not tmp_path.exists()


def test_a_killed_holder_leaves_the_state_folder_free(tmp_path: Path) -> None:
    code = (
        "import os\nfrom pathlib import Path\nfrom deployment.local.state_lock import StateLock\n"
        f"StateLock(Path({str(tmp_path)!r})).acquire()\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, timeout=30)
    lock = StateLock(tmp_path)
    lock.acquire()
    lock.release()
