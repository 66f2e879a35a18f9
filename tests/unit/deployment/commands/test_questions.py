"""Without a terminal, a command that needs an answer ends with an error that names the option."""

from __future__ import annotations

import io
import sys

import pytest

from deployment.commands.questions import QuestionUnanswered, asking


@pytest.mark.parametrize("stdin", [None, io.StringIO()], ids=["closed", "not a terminal"])
def test_a_question_without_a_terminal_names_the_option(
    monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(QuestionUnanswered, match="--yes"):
        asking(yes=False)("Deploy?")
