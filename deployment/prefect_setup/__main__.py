"""Registers a stack in Prefect or removes it: its work pool, blocks, deployments, limits and automations.

    python -m deployment.prefect_setup register sluice --pool local
    python -m deployment.prefect_setup remove sluice

The commands use the Prefect API at PREFECT_API_URL, and can be repeated safely. All names contain the stack's name, so
that several stacks can share a server. A single process does everything, because most of the time is spent on starting
Prefect.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # most of this short process is spent on imports, which create no garbage

import argparse
import sys

from deployment.prefect_setup.registration import register, remove
from deployment.prefect_setup.work_pools import KINDS
from flows.refinery.errors import SluiceError


def main() -> int:
    """Run the command that the arguments name, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployment.prefect_setup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    registering = commands.add_parser("register", help="register a deployed stack, or update its registration")
    registering.add_argument("--pool", choices=KINDS, required=True, help="what executes the runs that a user starts")
    removing = commands.add_parser("remove", help="remove what `register` created for a stack")
    for command in (registering, removing):
        command.add_argument("stack", help="the stack's name")
    given = parser.parse_args()
    try:
        for line in register(given.stack, given.pool) if given.command == "register" else remove(given.stack):
            print(line, flush=True)  # noqa: T201 (a command's output)
    except SluiceError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
