"""Runs the project's own commands (registering blocks, deploying to Prefect) against a local cloud."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from deployment import PROJECT_ROOT
from flows.refinery.errors import SluiceError

_LINES_SHOWN = 15


class CommandFailed(SluiceError):
    """One of the project's own commands, such as registering the blocks, failed or took too long."""


class ProjectCommand:
    """A running command; leaving the block ends it if it still runs."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        """Start `command` with the project's root as working directory and `environment` as its whole environment."""
        self._shown = " ".join(command)
        # A file, not a pipe: nothing reads it meanwhile, and a full pipe would block the command.
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [program(command[0]), *command[1:]],
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def finish(self, timeout_seconds: float) -> str:
        """Wait until it ends; return its output.

        Raises:
            CommandFailed: it failed or took too long; with the end of its output.
        """
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{self._shown} took longer than {timeout_seconds:.0f} seconds.") from error
        self._output.seek(0)
        output = self._output.read().decode(errors="replace")
        if code != 0:
            end = "\n".join(f"  {line}" for line in output.strip().splitlines()[-_LINES_SHOWN:])
            raise CommandFailed(f"{self._shown} failed with exit code {code}:\n{end}")
        return output


def program(name: str) -> str:
    """Return the path of a program in this environment, or the name if it is not in it."""
    path = Path(sys.executable).parent / name
    return str(path) if path.exists() else name
