"""Tests of the stand-in for Docker in the local cloud, which runs a container's command as a process."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployment.local.emulator.containers import APIError, Container, Containers, NotFound
from deployment.local.processes import recorded
from tests.emulator.memory_use import exceeds


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    engine = Containers(tmp_path, f"{Path(sys.executable).parent}:/usr/bin:/bin", "eu-central-1")
    yield engine
    engine.close(grace_seconds=1)
    assert recorded(tmp_path / "processes") == []


def run(containers: Containers, code: str, **options: object) -> Container:
    return containers.run("image", ["python", "-c", code], **options)  # type: ignore[arg-type]


def first_line(container: Container) -> str:
    lines = container.logs(stream=True)
    assert not isinstance(lines, bytes)
    return next(lines).decode().strip()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139),
    ],
)
def test_the_exit_codes_are_those_of_docker(containers: Containers, code: str, expected: int) -> None:
    container = run(containers, code)
    assert container.wait(timeout=20)["StatusCode"] == expected
    assert container.status == "exited"
    assert container.attrs["State"]["ExitCode"] == expected


def test_the_memory_of_child_processes_counts(containers: Containers) -> None:
    greedy = "import time; eaten = bytearray(b'x') * (300 << 20); time.sleep(60)"
    container = run(containers, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {greedy!r}])")
    assert container.pid is not None
    assert exceeds(container.pid, 200 << 20, lambda: container.status != "running")


def test_a_container_below_the_limit_is_not_counted_as_exceeding_it(containers: Containers) -> None:
    container = run(containers, "import time; eaten = bytearray(b'x') * (50 << 20); time.sleep(1)")
    assert container.pid is not None
    assert not exceeds(container.pid, 200 << 20, lambda: container.status != "running")


def test_stopping_sends_sigterm_and_keeps_the_exit_code(containers: Containers) -> None:
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(4)); print('up', flush=True); signal.pause()"
    container = run(containers, code)
    assert first_line(container) == "up"
    container.stop(timeout=20)
    assert container.exit_code == 4


def test_a_container_that_ignores_sigterm_is_killed_after_the_timeout(containers: Containers) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    container = run(containers, code)
    assert first_line(container) == "up"
    container.stop(timeout=0.2)
    assert container.exit_code == 137


def test_children_end_with_the_main_process(containers: Containers) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    container = run(containers, code)
    child = int(first_line(container))
    container.wait(timeout=20)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and ") Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "the child outlived its container"
        time.sleep(0.02)


def test_followed_output_is_complete_and_comes_in_whole_lines(containers: Containers) -> None:
    code = (
        "import sys, time\n"
        "for part in 'on', 'e\\ntw', 'o\\nthree':\n"
        "    sys.stdout.write(part); sys.stdout.flush(); time.sleep(0.1)"
    )
    assert list(run(containers, code).logs(stream=True)) == [b"one\n", b"two\n", b"three"]


def test_output_can_be_read_after_the_container_was_removed(containers: Containers) -> None:
    container = run(containers, "print('last words')")
    container.wait(timeout=20)
    container.remove()
    assert list(container.logs(stream=True)) == [b"last words\n"]
    assert container.logs(tail=1) == b"last words\n"


def test_home_and_temporary_files_are_deleted_with_the_container(containers: Containers, tmp_path: Path) -> None:
    code = "import pathlib, tempfile; print(tempfile.mkdtemp()); (pathlib.Path.home() / 'file').touch()"
    container = run(containers, code)
    assert Path(first_line(container)).is_relative_to(tmp_path)
    container.wait(timeout=20)
    container.remove()
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_container_does_not_inherit_our_environment(containers: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-users-own")
    code = "import os; print(os.environ.get('AWS_SECRET_ACCESS_KEY'), os.environ['WANTED'])"
    assert first_line(run(containers, code, environment={"WANTED": "yes"})) == "None yes"


def test_a_command_that_does_not_exist_is_an_error_and_leaves_no_container(containers: Containers) -> None:
    with pytest.raises(APIError, match="no-such-program"):
        containers.run("image", ["no-such-program"])
    assert containers.list(all=True) == []


def test_a_running_container_is_removed_only_by_force(containers: Containers) -> None:
    container = run(containers, "import time; time.sleep(60)")
    with pytest.raises(APIError, match="running"):
        container.remove()
    container.remove(force=True)
    assert container.exit_code == 137
    with pytest.raises(NotFound):
        containers.get(container.id)


def test_containers_are_found_by_id_name_and_label(containers: Containers) -> None:
    container = run(containers, "import time; time.sleep(60)", name="one", labels={"ministack": "ecs", "a": "1"})
    run(containers, "import time; time.sleep(60)", name="two", labels={"ministack": "ecs", "a": "2"})
    assert containers.get(container.id) is containers.get(container.id[:12]) is containers.get("one") is container
    assert containers.list(filters={"label": ["ministack", "a=1"]}) == [container]
    assert len(containers.list(filters={"label": "ministack=ecs"})) == 2


def test_closing_ends_all_containers_together_and_starts_no_more(containers: Containers) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    started = [run(containers, code) for _ in range(3)]
    for container in started:
        assert first_line(container) == "up"
    begun = time.monotonic()
    containers.close(grace_seconds=0.5)
    assert time.monotonic() - begun < 5
    assert [container.exit_code for container in started] == [137] * 3
    with pytest.raises(APIError, match="shutting down"):
        run(containers, "pass")


def test_waiting_times_out(containers: Containers) -> None:
    container = run(containers, "import time; time.sleep(60)")
    with pytest.raises(TimeoutError):
        container.wait(timeout=0.1)


def test_the_exit_codes_of_concurrent_containers_are_not_mixed_up(containers: Containers) -> None:
    started = [run(containers, f"raise SystemExit({code})") for code in range(8)]
    results: dict[int, int] = {}

    def wait(index: int) -> None:
        results[index] = started[index].wait(timeout=30)["StatusCode"]

    threads = [threading.Thread(target=wait, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {index: index for index in range(8)}
    assert os.getpid() not in {record.pid for record in recorded(containers.records)}
