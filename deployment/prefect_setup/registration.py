"""Registers in Prefect all that it is to know of the stack: work pool, blocks, deployments, automations.

    python -m deployment.prefect_setup.registration local
    python -m deployment.prefect_setup.registration ecs --stack sluice

It gives the same result however often it runs. One process does it all: each of these commands is mostly start-up.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

from prefect.cli import app

from blocks import register
from deployment.prefect_setup import automations, work_pools
from deployment.prefect_setup.work_pools import ECS_POOL, LOCAL_POOL


def main(arguments: Sequence[str] | None = None) -> int:
    """Register everything; return the exit code of the first step that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m deployment.prefect_setup.registration", description=__doc__)
    parser.add_argument("pool", choices=(LOCAL_POOL, ECS_POOL), help="where runs that a person starts are executed")
    parser.add_argument("--stack", default="sluice", help="the stack whose outputs fill the ECS pool in")
    given = parser.parse_args(arguments)
    for what, step in _steps(given.pool, given.stack).items():
        print(f"{what}:", flush=True)  # noqa: T201 (a command's output)
        code = step()
        if code:
            return code
    return 0


def _steps(pool: str, stack_name: str) -> dict[str, Callable[[], int]]:
    local = ("work-pool", "create", LOCAL_POOL, "--type", "process", "--overwrite")
    ecs = [ECS_POOL, "--stack", stack_name]
    return {
        "making the work pool": partial(_prefect, *local) if pool == LOCAL_POOL else partial(work_pools.main, ecs),
        "registering the blocks": partial(register.main, []),
        "registering the deployments": partial(_prefect, "deploy", "--all"),
        "applying the automations": partial(automations.main, []),  # they name blocks and deployments
    }


def _prefect(*words: str) -> int:
    """Run Prefect's own command line; return its exit code."""
    sys.argv = ["prefect", "--no-prompt", *words]
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
