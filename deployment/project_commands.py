"""Runs this project's commands, such as the registration in Prefect, as separate processes."""

import subprocess
import sys
from pathlib import Path

from deployment import PROJECT_ROOT
from flows.refinery.errors import SluiceError

_LINES_SHOWN = 15


class CommandFailed(SluiceError):
    """A project command that ran as a separate process failed or timed out."""


def run_command(command: list[str], environment: dict[str, str], timeout_seconds: float) -> str:
    """Run a command in the project's root folder with only the variables in `environment`, and return its output.

    Raises:
        CommandFailed: the command failed, or took longer than `timeout_seconds`. After a failure, the message contains
            the last lines of the output.
    """
    shown = " ".join(command)
    try:
        done = subprocess.run(
            [program(command[0]), *command[1:]],
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{shown} took longer than {timeout_seconds:.0f} seconds.") from error
    if done.returncode != 0:
        end = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-_LINES_SHOWN:])
        raise CommandFailed(f"{shown} failed with exit code {done.returncode}:\n{end}")
    return done.stdout


def program(name: str) -> str:
    """Return the path of an executable in this Python environment, or just its name if it is not installed there."""
    path = Path(sys.executable).parent / name
    return str(path) if path.exists() else name
