"""The path of an upload through the code is short, and few of its calls go from the core towards the edge."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flows.drain_queue import drain_of
from flows.observability.flow_run import FlowRunner
from flows.observability.observed_upload import TaskCalls, run_observed
from flows.pipeline.commit import commit_and_settle
from flows.pipeline.delivery import process_delivery
from flows.pipeline.drain import Drain
from flows.pipeline.run import run_upload
from flows.pipeline.stages import fetch, publish, record, refine
from flows.refinery.refine import refine_file, refine_partition

# Each step is a caller, the call in its source, and the callee. A TaskCalls object calls the stages.
PATH: tuple[tuple[Callable[..., Any], str, Callable[..., Any]], ...] = (
    (Drain.work, "self._work_live(", Drain._work_live),
    (Drain._work_live, "process_delivery(", process_delivery),
    (drain_of, "runner.process", FlowRunner.process),
    (FlowRunner._run, "run_observed(", run_observed),
    (run_observed, "run(parts", run_upload),
    (run_upload, "do(fetch", fetch),
    (run_upload, "do(refine", refine),
    (refine, "refine_file(", refine_file),
    (run_upload, "do(publish", publish),
    (run_upload, "do(record", record),
    (record, "commit_and_settle(", commit_and_settle),
)
STAGES = (fetch, refine, publish, record)
# The folders from the core to the edge. A climb is a call into a folder further to the right.
FOLDERS = ("lambda_trigger", "flows.refinery", "blocks", "flows.pipeline", "flows", "deployment")


def _rank(function: Callable[..., Any]) -> int:
    inside = [place for place, folder in enumerate(FOLDERS) if f"{function.__module__}.".startswith(f"{folder}.")]
    return max(inside, key=lambda place: len(FOLDERS[place]))


def test_every_step_of_the_path_is_in_the_code() -> None:
    for caller, call, _ in PATH:
        assert call in inspect.getsource(caller)
    assert "refine_partition" in inspect.getsource(inspect.getmodule(refine_file))  # type: ignore[arg-type]
    assert callable(refine_partition)


def test_the_path_climbs_at_most_six_times_and_has_at_most_fifteen_names() -> None:
    climbs = sum(_rank(callee) > _rank(caller) for caller, _, callee in PATH)
    climbs += len(STAGES)  # run_upload calls each stage through TaskCalls, in flows.observability
    assert _rank(TaskCalls.__call__) > _rank(run_upload)
    assert climbs <= 6
    assert len({function for caller, _, callee in PATH for function in (caller, callee)} | {TaskCalls}) <= 15
