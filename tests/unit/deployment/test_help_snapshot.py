"""The --help of every command matches the snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from deployment.cli import app
from tests.snapshot import check_snapshot


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words that name `command` after `sluice` on the command line, and those of each command below it."""
    yield words
    for name, part in sorted(getattr(command, "commands", {}).items()):
        yield from commands(part, (*words, name))


def test_the_help_of_every_command_matches_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    pages = []
    for words in commands(typer.main.get_command(app)):
        result = CliRunner().invoke(app, [*words, "--help"], prog_name="sluice")
        assert result.exit_code == 0
        pages.append(f"$ {' '.join(('sluice', *words, '--help'))}\n{result.output}")
    check_snapshot("help", "\n".join(pages))
