"""A command that takes longer than a second shows its progress, but only if its output is a terminal."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from deployment.commands import SafeConsole, progress, show
from deployment.commands.progress import shown_after_a_second
from deployment.commands.show import shown_bars
from deployment.commands.upload_files import LocalFile


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


def test_if_the_output_is_not_a_terminal_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, terminal=False, seconds=0.3) == ""


def bars(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds: float) -> str:
    """Return what is shown once half of one file has been sent, and nothing yet of a second file."""
    monkeypatch.setattr(show, "FIRST_SECONDS", 0.1)
    output = io.StringIO()
    files = [LocalFile(Path(name), name, (), 1_000, name) for name in ("a.csv", "b.csv")]
    with shown_bars(SafeConsole(file=output, force_terminal=terminal, width=100), files):
        files[0].on_bytes(500)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and "a.csv" not in output.getvalue():
            time.sleep(0.01)
    return output.getvalue()


def test_a_long_upload_has_progress_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = bars(monkeypatch, terminal=True, seconds=30)
    assert "a.csv" in shown
    assert "b.csv" not in shown, "nothing of it was sent"


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0), (False, 0.3)])
def test_a_short_upload_or_one_without_a_terminal_has_no_progress_bars(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds: float
) -> None:
    assert "a.csv" not in bars(monkeypatch, terminal=terminal, seconds=seconds)
