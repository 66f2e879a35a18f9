"""A command that takes longer than a second shows what it does on a terminal, and only there."""

from __future__ import annotations

import io
import time

import pytest

from deployment.commands import SafeConsole, progress
from deployment.commands.progress import shown_after_a_second


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds: float) -> str:
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.1)
    output = io.StringIO()
    with shown_after_a_second(SafeConsole(file=output, force_terminal=terminal), "reading a.csv") as on_progress:
        on_progress("looking for keys")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and "looking for keys" not in output.getvalue():
            time.sleep(0.01)
    return output.getvalue()


def test_a_long_command_shows_what_it_does_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "reading a.csv: looking for keys (" in shown(monkeypatch, terminal=True, seconds=30)


def test_a_short_command_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=True, seconds=0) == ""


def test_where_the_output_is_kept_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=False, seconds=0.3) == ""
