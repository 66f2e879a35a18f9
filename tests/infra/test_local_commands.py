"""Runs `sluice` as a user does: `up` in one terminal, other commands in another, Ctrl-C, and `up` again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deployment import PROJECT_ROOT
from deployment.local.endpoints import Endpoints
from deployment.local.processes import recorded
from deployment.local.running import running_cloud
from deployment.samples import orders
from lambda_trigger.message import UploadMessage
from tests import forking
from tests.looking import looks

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(400)]

_SLUICE = [str(Path(sys.executable).parent / "sluice")]  # all processes make their own imports, as they do for a user
_FORKED = [sys.executable, "-m", "deployment.cli"]  # forked from a process that has made the imports
_PENGUINS = PROJECT_ROOT / "deployment" / "samples" / "penguins.csv"
_START_SECONDS = 120


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sluice") / "state"


@pytest.fixture(scope="module")
def demo(state: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `sluice demo` in a new state folder, which the other tests use afterwards."""
    return sluice("demo", state=state, home=home, command=_SLUICE)


def environment(home: Path, command: Sequence[str]) -> dict[str, str]:
    """Return a user's environment, with credentials that would fail if any command used them. Forked processes have
    another home, because they read Prefect's default settings, which creates a folder."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home if command is _SLUICE else home.with_name("home-of-forks")),
        "AWS_PROFILE": "production",
        "AWS_ACCESS_KEY_ID": "AKIAUSERSOWNKEY",
        "AWS_SECRET_ACCESS_KEY": "users-own-secret",
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
    }


def sluice(
    *arguments: str, state: Path, home: Path, command: Sequence[str] = _FORKED
) -> subprocess.CompletedProcess[str]:
    return forking.run(
        [*command, *arguments, "--state", str(state)],
        env=environment(home, command),
        capture_output=True,
        text=True,
        timeout=300,
    )


@contextmanager
def as_in_a_terminal() -> Iterator[None]:
    """Use Python's default handler of SIGINT while a process is started. If the tests run in the background of a shell,
    they ignore SIGINT, and so would the process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def up(state: Path, home: Path, command: Sequence[str] = _FORKED) -> Iterator[subprocess.Popen[str]]:
    """Run `sluice up`. Yield its process once it is ready, and send it SIGINT afterwards, unless it has already
    ended."""
    output = state.parent / "up.log"
    with output.open("w") as log, as_in_a_terminal():
        process = forking.popen()(
            [*command, "up", "--state", str(state)],
            env=environment(home, command),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while "Sluice is up" not in output.read_text():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130, output.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in output.read_text()


def printed_by_up(state: Path, awaited: str) -> str:
    """Wait until `sluice up` has printed `awaited`, and return everything that it has printed."""
    for _ in looks(60):
        printed = (state.parent / "up.log").read_text()
        if awaited in printed:
            return printed
    raise AssertionError(printed)


def status_of(state: Path, home: Path) -> dict[str, Any]:
    shown = sluice("status", "--json", state=state, home=home)
    assert shown.returncode == 0, shown.stderr
    document: dict[str, Any] = json.loads(shown.stdout)
    return document


def settled(state: Path, home: Path) -> dict[str, Any]:
    """Return the status once no message is being processed, no upload is in progress and none is unrecorded. That is
    some time after the last receipt."""
    for _ in looks(60):
        document = status_of(state, home)
        if not document["queue"]["being_worked_on"] and not document["in_progress"] and not document["unrecorded"]:
            return document
    raise AssertionError(f"not settled: {document['queue']}, {document['in_progress']}, {document['unrecorded']}")


def test_the_demo_ends_by_itself_with_everything_as_expected(
    demo: subprocess.CompletedProcess[str], state: Path, home: Path
) -> None:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "All 8 files ended as expected." in demo.stdout
    for promised in ("published", "quarantined", "rejected", "s3://", "Watch the runs at http://127.0.0.1:"):
        assert promised in demo.stdout
    times = [float(line.split()[0]) for line in demo.stdout.splitlines() if re.match(r" *[0-9.]+ s  ", line)]
    assert times == sorted(times), "one clock"
    assert f"`.venv/bin/sluice up --state {state}`" in demo.stdout.splitlines()[-1]
    assert recorded(state / "processes") == []
    assert list(home.iterdir()) == []


def test_uploads_survive_a_restart_and_a_kill_and_can_be_redriven(
    demo: subprocess.CompletedProcess[str], state: Path, home: Path, tmp_path: Path
) -> None:
    """This is one long test, because each start takes several seconds."""
    orders.write(tmp_path / "bad.csv", 100, "missing_column")
    with up(state, home, _SLUICE):
        (read,) = re.findall(r", then in another terminal: (.+)", demo.stdout)
        rows = sluice(*read.split()[1:3], state=state, home=home, command=_SLUICE)
        assert rows.returncode == 0, rows.stdout + rows.stderr
        assert "342 rows published" in rows.stdout
        published = sluice("upload", str(_PENGUINS), state=state, home=home, command=_SLUICE)
        assert published.returncode == 0, published.stdout + published.stderr
        assert "342 of 344 published, 2 quarantined" in published.stdout
        rejected = sluice("upload", str(tmp_path / "bad.csv"), "--dataset", "orders", state=state, home=home)
        assert rejected.returncode == 1, rejected.stdout + rejected.stderr
        assert "quantity" in rejected.stdout
        before = settled(state, home)
        printed = printed_by_up(state, "rejected ")
        assert "published  incoming/penguins/penguins.csv  342 of 344 published, 2 quarantined" in printed
        found = sluice("status", "penguins.csv", "--json", state=state, home=home, command=_SLUICE)
        keys = [one["source"]["key"] for one in json.loads(found.stdout)["finished"]]
        assert keys == ["incoming/penguins/penguins.csv"] * 2, "the demo uploaded it too"
        assert [one["status"] for one in before["finished"][:2]] == ["rejected", "published"]
        assert before["queue"] == {"waiting": 0, "being_worked_on": 0, "given_up": 0}
        assert (before["failed"], before["unrecorded"], before["unreadable"]) == ([], 0, {})
        second = sluice("up", state=state, home=home)
        assert second.returncode == 3
        assert sluice("clean", state=state, home=home).returncode == 3
    assert recorded(state / "processes") == []
    assert sluice("status", state=state, home=home).returncode == 3
    with up(state, home) as process:
        after = status_of(state, home)
        assert after["finished"] == before["finished"]
        # The pipeline still works: uploading the same file again creates a new version and a new run.
        again = sluice("upload", str(_PENGUINS), state=state, home=home)
        assert again.returncode == 0, again.stdout + again.stderr
        assert len(status_of(state, home)["finished"]) == len(before["finished"]) + 1
        given_up = dead_letter(running_cloud(state))
        assert status_of(state, home)["queue"]["given_up"] == 1
        redriven = sluice("redrive", "--run", given_up.run_id[:8], state=state, home=home, command=_SLUICE)
        assert redriven.returncode == 0, redriven.stdout + redriven.stderr
        finished = finished_with(given_up, state, home)
        assert finished["queue"]["given_up"] == 0
        assert sluice("redrive", "--run", given_up.run_id, state=state, home=home).returncode == 3
        records = recorded(state / "processes")  # the three services, and perhaps a task for earlier messages
        left = {record.pid for record in records}
        assert len([record for record in records if not record.what.startswith("task ")]) == 3
        before = status_of(state, home)
        process.kill()
        process.wait()
    with up(state, home) as process:
        assert not left & {record.pid for record in recorded(state / "processes")}
        assert status_of(state, home)["finished"] == before["finished"]
        # The demo uses the running cloud, reports files with unexpected results, and leaves the cloud running.
        hurried = sluice("demo", "--deadline", "1", state=state, home=home)
        assert hurried.returncode == 1, hurried.stdout + hurried.stderr
        assert "at the deadline" in hurried.stdout
        assert process.poll() is None
        assert status_of(state, home)["finished"]
    assert list(home.iterdir()) == []


def dead_letter(cloud: Endpoints) -> UploadMessage:
    """Upload a file with a name that the trigger ignores, and put its message into the dead-letter queue."""
    bucket, key = cloud.outputs["LandingBucket"], "incoming/penguins/_given_up.csv"
    put = cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=_PENGUINS.read_bytes())
    size = _PENGUINS.stat().st_size
    etag = put["ETag"].strip('"')
    message = UploadMessage(bucket=bucket, key=key, version_id=put["VersionId"], etag=etag, size_bytes=size)
    cloud.client("sqs").send_message(QueueUrl=cloud.outputs["DeadLetterQueueUrl"], MessageBody=message.to_json())
    return message


def finished_with(message: UploadMessage, state: Path, home: Path) -> dict[str, Any]:
    for _ in looks(60):
        document = status_of(state, home)
        if message.run_id in [one["run_id"] for one in document["finished"]]:
            return document
    raise AssertionError(f"no receipt: {document['queue']}, {document['failed']}")


def test_clean_deletes_the_state_folder(state: Path, home: Path) -> None:
    assert sluice("clean", "--cache", state=state, home=home).returncode == 0
    assert not state.exists()
