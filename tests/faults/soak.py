"""The soak: thousands of small uploads with kills, lost responses, rejected calls and repeated events.

    python -m tests.faults.soak --uploads 10000 --seed 1

The Lambda's handler, the container's command and everything that they call run with S3, SQS and Step Functions in the
local cloud and with a Prefect server. The faults are drawn from the seed. Afterwards, the buckets and Prefect are
audited from the outside. The last line of the output has the counts. It ends with unrecorded=0 wrong=0 lost=0 doubled=0
if each upload is in a flow run, everything is correct, nothing is lost and nothing is duplicated.

For speed, these parts are not included: S3's own events and the Lambda runtime, ECS, and the state machine's
definition. The soak itself does what the state machine and an operator would do: it starts tasks until the queue is
empty, and redrives the dead-letter queue. tests/chain and the other fault tests cover these parts.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deployment.local.cloud import LocalCloud
from deployment.local.ports import free_port
from tests.faults.soak_audit import Audit, audit
from tests.faults.soak_files import EVENTS, READINGS, soak_files, write_contracts
from tests.faults.soak_ground import Ground
from tests.faults.soak_uploads import Front, Uploaded
from tests.faults.soak_workers import EXIT_DONE, Crew, Task
from tests.warm_cloud import WarmCloud

_SHOWN = 10
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 2.0
_UPLOADS_PER_RERUN = 40
_CALM_MESSAGES = 20
_REST_SECONDS = 300.0  # if nothing has changed for this long, nothing will change any more


@dataclass
class Result:
    """The result of a soak."""

    audit: Audit
    line: str
    problems: list[str]
    kills: int
    lost_responses: int
    reruns: int

    @property
    def passed(self) -> bool:
        """Return whether there were no problems."""
        return not self.problems


@dataclass
class Soak:
    """A soak with its state in a separate folder."""

    ground: Ground
    folder: Path
    uploads: int
    seed: int
    workers: int
    say: Callable[[str], None]
    forced: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dice = random.Random(f"soak {self.seed}")
        self._began = time.monotonic()
        contracts = [write_contracts(self.folder / name, compression=name) for name in ("zstd", "snappy")]
        environments = [self.ground.task_environment(SLUICE_CONTRACTS_FOLDER=str(path)) for path in contracts]
        # One worker in ten runs another release, whose contracts produce other bytes.
        self.crew = Crew(environments[:1] * 9 + environments[1:], self.folder, self.seed, self.workers)
        self.front = Front(self.ground, self.seed, soak_files(self.seed, self.uploads))
        self._receipts: set[str] = set()
        self._waiting = self._reruns = self._left_behind = 0

    def run(self) -> Result:
        """Upload files, run workers and inject faults until everything is quiet. Then audit the buckets and Prefect."""
        self.front.start()
        try:
            left = self._see_through()
        finally:
            self.front.stop()
            self.crew.end()
        self.say("all is quiet; deleting orphaned outputs as reconciling does, then reading the buckets")
        self._left_behind = self.ground.delete_orphaned(self.crew.environments[0])
        found = audit(self.ground, self.front.uploaded, self.forced)
        return self._result(found, left)

    def _see_through(self) -> int:
        """Act as the state machine and the sweep, by starting tasks until no work is left. Return the number of
        remaining messages."""
        looked = moved = time.monotonic()
        told = before = ""
        while True:
            for task in self.crew.reap():
                self._repeat_if_failed(task)
            self.crew.strike(len(self._receipts))
            now = time.monotonic()
            if now - looked >= _LOOK_SECONDS:
                looked = now
                left = self._look()
                self.crew.calm = self.front.over and left < _CALM_MESSAGES
                told = self._progress(left, told)
                state = f"{len(self.front.uploaded)} {len(self._receipts)} {left}"
                moved, before = (now, state) if state != before else (moved, before)
                if now - moved > _REST_SECONDS or (self.front.over and not left and not self.crew.tasks):
                    return left
            self._start_what_is_wanted()
            time.sleep(_POLL_SECONDS)

    def _look(self) -> int:
        self._receipts = {key[len("receipts/") : -len(".json")] for key in self.ground.keys("receipts/")}
        self.ground.redrive()
        dead = sum(self.ground.count(self.ground.dead_letter_url).values())
        self._waiting = sum(self.ground.count().values()) + sum(1 for _ in self.ground.keys("batches/"))
        return self._waiting + max(0, dead - self.front.unreadable)

    def _start_what_is_wanted(self) -> None:
        self._force_some()
        wanted = self.workers if not self.front.over or self._waiting else 0
        for _ in range(wanted - sum(task.rerun is None for task in self.crew.tasks)):
            self.crew.start_worker()

    # --- re-runs ------------------------------------------------------------------------------------------------

    def _force_some(self) -> None:
        """Force a re-run of an upload now and then, half of them through the queue and half manually. Some manual
        re-runs use another contract."""
        if len(self.front.uploaded) < (self._reruns + 1) * _UPLOADS_PER_RERUN or self.crew.calm:
            return
        self._reruns += 1
        uploaded = self._dice.choice(self.front.uploaded[-_UPLOADS_PER_RERUN * 10 :])
        through_the_queue = self._dice.random() < 0.5
        if through_the_queue:
            self.front.force(uploaded)
        else:
            self._by_hand(uploaded)
        # If an upload has no receipt yet, a manual run is its first run and not a re-run.
        if through_the_queue or uploaded.run_id in self._receipts:
            self.forced[uploaded.run_id] = 1

    def _by_hand(self, uploaded: Uploaded) -> None:
        dataset = self._dice.choice(("", "", READINGS, EVENTS))
        self.crew.start_rerun(uploaded.file.key, str(uploaded.message.version_id), dataset)

    def _repeat_if_failed(self, task: Task) -> None:
        """Repeat a manual re-run that has failed."""
        if task.rerun and task.process.returncode != EXIT_DONE:
            self.crew.start_rerun(*task.rerun)

    # --- reporting ----------------------------------------------------------------------------------------------

    def _progress(self, left: int, told: str) -> str:
        minutes = (time.monotonic() - self._began) / 60
        now = f"{minutes * 6:.0f}"  # every ten seconds
        if now != told:
            self.say(
                f"{minutes:5.1f} min: {len(self.front.uploaded):,} uploaded, {len(self._receipts):,} receipts, "
                f"{left} messages, {self.crew.kills} kills"
            )
        return now

    def _result(self, found: Audit, left: int) -> Result:
        lost_answers = self.crew.met("lose_answer") + self.front.faults["lose_answer"]
        refused = sum(self.crew.met(do) + self.front.faults[do] for do in ("refuse", "drop"))
        problems = [*found.lost, *found.doubled, *found.wrong, *found.unrecorded]
        if self._left_behind > self.crew.overtaken_kills:  # only the output of such a worker is not cleaned up
            problems.append(f"{self._left_behind} objects were left behind, more than overtaken workers can have left")
        if left:
            problems.append(f"{left} messages and batch notes are left")
        line = (
            f"uploads={len(self.front.uploaded)} receipts={found.receipts} published={found.published} "
            f"rejected={found.rejected} duplicates_published={found.duplicates_published} messages_left={left} "
            f"events={self.front.events} reruns={self._reruns} kills={self.crew.kills} stops={self.crew.stops} "
            f"lost_responses={lost_answers} refused={refused} redriven={self.ground.redriven} "
            f"left_behind={self._left_behind} seed={self.seed} "
            f"minutes={(time.monotonic() - self._began) / 60:.1f} "
            f"unrecorded={len(found.unrecorded)} wrong={len(found.wrong)} "
            f"lost={len(found.lost)} doubled={len(found.doubled)}"
        )
        return Result(found, line, problems, self.crew.kills, lost_answers, self._reruns)


def soak(
    cloud: LocalCloud, folder: Path, *, uploads: int, seed: int, workers: int, say: Callable[[str], None]
) -> Result:
    """Run a soak in a local cloud, with the workers' files in `folder`, and return its result. Progress is passed to
    `say`."""
    return Soak(Ground(cloud), folder, uploads, seed, workers, say).run()


def main() -> int:
    """Run the soak with the options on the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="where to keep everything; default: a temporary folder")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="sluice-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("sluice.trigger").setLevel(logging.CRITICAL)  # the Lambda's lines would hide those of the soak
    with WarmCloud(folder / "cloud", prefect_port=free_port()) as cloud:
        result = soak(cloud, folder, uploads=given.uploads, seed=given.seed, workers=given.workers, say=_say)
    for problem in result.problems[:_SHOWN]:
        _say(f"  {problem}")
    if result.passed:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _say(f"{len(result.problems)} problems; the logs of the workers and the content of S3 are in {folder}")
    _say(result.line)
    return 0 if result.passed else 1


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
