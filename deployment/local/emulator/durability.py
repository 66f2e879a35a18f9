"""Preserves the emulator's state and its running executions if the process is killed.

MiniStack saves its state only when it stops normally, and fails executions that were running when it stopped. With this
patch, the state is saved every few seconds, and these executions start again from their first state, which is safe for
a drain. Tasks cannot continue, so they are marked as stopped; MiniStack would list them as running.
"""

import json
import logging
import threading
import time
from types import SimpleNamespace
from typing import Any, TextIO

from ministack import app
from ministack.core import persistence
from ministack.core.responses import request_scope
from ministack.services import ecs, stepfunctions

LOG = logging.getLogger("sluice.durability")
_SHORTEST_PAUSE_SECONDS = 5.0
_WORK_PER_PAUSE = 20  # the pause between two saves is at least this many times as long as a save

_interrupted: list[tuple[str, str, str]] = []


def install() -> None:
    restore = stepfunctions._restore_state

    def restore_and_remember(data: dict[str, Any]) -> None:
        running = {
            scoped_arn
            for scoped_arn, execution in (data or {}).get("executions", stepfunctions._executions)._data.items()
            if execution["status"] == "RUNNING"
        }
        restore(data)
        for scoped_arn in running:
            execution = stepfunctions._executions._data[scoped_arn]
            execution.update(status="RUNNING", stopDate=None, events=execution["events"][:1])
            execution.pop("error", None)
            execution.pop("cause", None)
        _interrupted.extend(running)

    stepfunctions._restore_state = restore_and_remember
    _end_restored_tasks()
    _save_one_at_a_time()
    _encode_in_c()


def _end_restored_tasks() -> None:
    restore = ecs._restore_state

    def restore_as_ended(data: dict[str, Any]) -> None:
        restore(data)
        for task in ecs._tasks.all_values():
            if task["desiredStatus"] != "STOPPED":
                task.update(
                    desiredStatus="STOPPED",
                    stopCode="ServiceSchedulerInitiated",
                    stoppedReason="The local cloud was stopped.",
                )

    ecs._restore_state = restore_as_ended


def resume_executions() -> None:
    for account, region, execution_arn in _interrupted:
        LOG.info("resuming %s", execution_arn)
        with request_scope(account, region):
            app.spawn_background(stepfunctions._run_execution, execution_arn, thread_name="sluice-resumed")
    _interrupted.clear()


def _save_one_at_a_time() -> None:
    """Make the final save and the background saves wait for each other, because they write the same partial files."""
    save_all, saving = persistence.save_all, threading.Lock()

    def save_all_alone(services: dict[str, Any]) -> None:
        with saving:
            save_all(services)

    persistence.save_all = app.save_all = save_all_alone


def _encode_in_c() -> None:
    """Encode the state with `json.dumps`, which is written in C and takes a third of the CPU time of `json.dump`."""

    def dump(state: object, file: TextIO, **options: Any) -> None:
        file.write(json.dumps(state, **options))

    persistence.json = SimpleNamespace(dump=dump, load=json.load, JSONDecodeError=json.JSONDecodeError)


def save_periodically() -> None:
    """Start saving the state in the background, at most once every five seconds."""
    threading.Thread(target=_save_forever, daemon=True, name="sluice-save").start()


def _save_forever() -> None:
    pause = _SHORTEST_PAUSE_SECONDS
    while True:
        time.sleep(pause)
        begun = time.monotonic()
        persistence.save_all(app._build_persistence_save_dict())
        pause = max(_SHORTEST_PAUSE_SECONDS, _WORK_PER_PAUSE * (time.monotonic() - begun))
