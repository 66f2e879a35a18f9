"""The soak's workers, which run the container's entry point, and manual re-runs. The faults of each are drawn from a
seed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.bench import VISIBILITY_SECONDS, forked
from tests.faults.saboteur import TALLY_VARIABLE, Sabotage, as_variable, lay_own_plan

EXIT_DONE, EXIT_AGAIN = 0, 75

# The calls of a worker that a promise depends on, each with a part of its URL.
_POINTS = (
    ("sqs.ReceiveMessage", ""),
    ("sqs.DeleteMessageBatch", ""),
    ("s3.GetObject", "incoming/"),
    ("s3.GetObject", "receipts/"),
    ("s3.PutObject", "data/"),
    ("s3.PutObject", "quarantine/"),
    ("s3.PutObject", "receipts/"),
    ("s3.GetObject", "index/"),
    ("s3.PutObject", "index/"),
    ("s3.DeleteObject", "data/"),
    ("s3.PutObject", "attempts/"),
    ("s3.PutObject", "batches/"),
    ("s3.DeleteObject", "batches/"),
    ("s3.ListObjectsV2", ""),
)
_ENDS = {"kill_before": 9, "kill_after": 9, "terminate_after": 1, "": 3}
_TROUBLES = {"lose_answer": 8, "drop": 3, "refuse": 5, "cut": 1}
_REFUSALS = (("SlowDown", 503), ("InternalError", 500), ("AccessDenied", 403), ("ThrottlingException", 400))
_ALL_TRIES = 5  # boto3 gives up on a call after this many attempts
_GIVEN_UP = 0.08
_TROUBLES_EACH = 5
_UPLOADS_BEFORE_THE_END = 8.0
_UPLOADS_BETWEEN_STRIKES = 12.0
_STOPPED = 0.2
_KILLED_WHEN_OVERTAKEN = 0.5


def drawn_plan(seed: str) -> list[Sabotage]:
    """Draw the faults of a worker: at most one fatal fault, and several others."""
    dice = random.Random(seed)
    plan = [_trouble(dice) for _ in range(_TROUBLES_EACH)]
    end: Any = _draw(dice, _ENDS)
    if end:
        on, where = dice.choice(_POINTS)
        # The fatal fault is first in the plan, so that it takes effect if another fault matches the same call.
        plan.insert(0, Sabotage(on=on, where=where, do=end, nth=_some_time(dice)))
    return plan


def _trouble(dice: random.Random) -> Sabotage:
    on, where = dice.choice(_POINTS)
    do: Any = _draw(dice, _TROUBLES)
    if do == "cut" and on != "s3.GetObject":
        do = "lose_answer"
    code, status = dice.choice(_REFUSALS) if do == "refuse" else ("", 0)
    times = _ALL_TRIES if do != "cut" and dice.random() < _GIVEN_UP else 1
    return Sabotage(on=on, where=where, do=do, nth=_some_time(dice), times=times, code=code, status=status)


def _draw(dice: random.Random, weights: dict[str, int]) -> str:
    return dice.choices(tuple(weights), tuple(weights.values()))[0]


def _some_time(dice: random.Random) -> int:
    return 1 + int(dice.expovariate(1 / _UPLOADS_BEFORE_THE_END))


def rerun_by_hand(key: str, version_id: str, dataset: str) -> int:
    """Force a re-run without Prefect, and return the exit code, which is 0 if the re-run is done."""
    from flows.composition import parts_of_environment
    from flows.pipeline.json_log import log_json_lines
    from flows.pipeline.run import run_upload
    from flows.process_upload import job_by_hand
    from flows.refinery.errors import SluiceError

    log_json_lines()
    lay_own_plan()
    try:
        parts = parts_of_environment()
        run_upload(parts, job_by_hand(parts, key, version_id=version_id, dataset=dataset, force=True))
    except SluiceError as error:
        print(json.dumps({"event": "not done", "error": f"{type(error).__name__}: {error}"}))
        return EXIT_AGAIN
    return EXIT_DONE


@dataclass
class Task:
    """A running worker or manual re-run.

    Attributes:
        rerun: the key, version and dataset of a manual re-run; None for a worker.
        stopped_until: the time at which a task that was paused with SIGSTOP is resumed; 0 if it is not paused.
        overtaken: whether the task was paused for longer than its message stays invisible.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    rerun: tuple[str, str, str] | None = None
    stopped_until: float = 0.0
    overtaken: bool = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the task, unless it has already ended."""
        self.process.send_signal(number)


@dataclass
class Crew:
    """Runs workers, injects faults at random times, and counts them.

    Attributes:
        environments: the environments from which one is drawn for each task.
        exits: the number of tasks that have ended, by exit code.
        stops: the number of tasks that were paused with SIGSTOP for longer than their message stays invisible.
        overtaken_kills: how many of those were killed later.
        calm: whether faults have ended, so that the remaining work is left to undisturbed workers.
    """

    environments: list[dict[str, str]]
    folder: Path
    seed: int
    size: int
    tasks: list[Task] = field(default_factory=list)
    exits: Counter[int] = field(default_factory=Counter)
    stops: int = 0
    overtaken_kills: int = 0
    calm: bool = False
    _started: int = 0
    _strike_at: float = 0.0

    def __post_init__(self) -> None:
        self._dice = random.Random(f"crew {self.seed}")

    def start_worker(self) -> None:
        """Start a task that drains the queue."""
        environment, folder = self._environment()
        process = forked("tests.faults.saboteur", environment=environment, log=folder / "log")
        self.tasks.append(Task(process, folder))

    def start_rerun(self, key: str, version_id: str, dataset: str) -> None:
        """Start a manual re-run of an object version."""
        environment, folder = self._environment()
        rerun = (key, version_id, dataset)
        process = forked("tests.faults.soak_workers", *rerun, environment=environment, log=folder / "log")
        self.tasks.append(Task(process, folder, rerun))

    def reap(self) -> list[Task]:
        """Remove the tasks that have ended, count their exits, and return them."""
        over = [task for task in self.tasks if task.process.poll() is not None]
        self.tasks = [task for task in self.tasks if task not in over]
        for task in over:
            self.exits[task.process.returncode] += 1
            self.overtaken_kills += task.overtaken and task.process.returncode == -signal.SIGKILL
            shutil.rmtree(task.folder / "tmp", ignore_errors=True)
        return over

    def strike(self, done: int) -> None:
        """Resume the tasks whose pause is over, and kill some of them. If enough uploads are done since the last
        strike, kill another task, or pause it for longer than its message stays invisible."""
        now = time.monotonic()
        for task in self.tasks:
            if task.stopped_until and now >= task.stopped_until:
                task.stopped_until = 0.0
                task.signal(signal.SIGCONT)
                if self._dice.random() < _KILLED_WHEN_OVERTAKEN:
                    time.sleep(self._dice.random() / 50)
                    task.signal(signal.SIGKILL)
        victims = [task for task in self.tasks if not task.stopped_until]
        if victims and done >= self._strike_at and not self.calm:
            self._strike_at = done + self._dice.expovariate(1 / _UPLOADS_BETWEEN_STRIKES)
            self._hit(self._dice.choice(victims), now)

    def _hit(self, task: Task, now: float) -> None:
        if self._dice.random() < _STOPPED:
            self.stops += 1
            task.overtaken = True
            task.stopped_until = now + VISIBILITY_SECONDS + self._dice.uniform(0.5, 3)
            task.signal(signal.SIGSTOP)
        else:
            task.signal(signal.SIGKILL)

    def end(self) -> None:
        """Kill every remaining task."""
        for task in self.tasks:
            task.signal(signal.SIGKILL)
            task.process.wait()

    @property
    def kills(self) -> int:
        """Return the number of tasks that were killed with SIGKILL."""
        return self.exits[-signal.SIGKILL]

    def met(self, do: str) -> int:
        """Return how many faults of one type have taken effect."""
        path = self.folder / "tally"
        return sum(line.startswith(f"{do} ") for line in path.read_text().splitlines()) if path.exists() else 0

    def _environment(self) -> tuple[dict[str, str], Path]:
        self._started += 1
        folder = self.folder / f"task-{self._started}"
        (folder / "tmp").mkdir(parents=True)
        plan = [] if self.calm else drawn_plan(f"{self.seed} {self._started}")
        environment = {
            **self._dice.choice(self.environments),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            TALLY_VARIABLE: str(self.folder / "tally"),
            **as_variable(plan),
        }
        return environment, folder


if __name__ == "__main__":
    sys.exit(rerun_by_hand(*sys.argv[1:]))
