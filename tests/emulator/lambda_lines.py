"""Collects every line that a Lambda function writes. MiniStack waits only 50 ms for them.

Without this, lines would be lost on a busy machine, or would appear in the log of the next invocation.
"""

from __future__ import annotations

import queue
import time
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime

_END = "-- the end of this invocation's lines --"
_ANSWER_SENT = "        _real_stdout.flush()\n\nrun()\n"
_END_DEADLINE_SECONDS = 60.0


def install(_state: Path) -> None:
    """Make the Python workers print a marker line at the end of each invocation, and read their output up to it."""
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(_ANSWER_SENT) != 1:
        raise RuntimeError("this release of MiniStack answers for a function in another way than lambda_lines.py knows")
    mark = f'        print("{_END}", file=sys.stderr, flush=True)\n'
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_ANSWER_SENT, mark + _ANSWER_SENT)
    wait_a_moment = lambda_runtime.Worker._drain_stderr_bounded

    def collect(worker: Any, **waits: float) -> str:
        python = str(worker.config.get("Runtime", "")).startswith("python")
        return _lines_to_the_end(worker) if python else wait_a_moment(worker, **waits)

    lambda_runtime.Worker._drain_stderr_bounded = collect


def _lines_to_the_end(worker: Any) -> str:
    lines: list[str] = []
    deadline = time.monotonic() + _END_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        worker_ended = not worker._stderr_thread.is_alive()  # the process has died, and its pipe was read to the end
        try:
            line = worker._stderr_queue.get(timeout=0.05)
        except queue.Empty:
            if worker_ended:
                break
            continue
        if line == _END:
            break
        lines.append(line)
    return "\n".join(lines)
