"""Asks for confirmation before a command changes something."""

import sys
from collections.abc import Callable

import typer

from flows.refinery.errors import TerminalError


class QuestionUnanswered(TerminalError):
    """A command needs confirmation, but there is no terminal on which to ask for it."""


def asking(*, yes: bool) -> Callable[[str], bool]:
    """Return a function that asks a yes-or-no question, or returns True without asking if `yes` is set. Without a
    terminal, that function raises QuestionUnanswered."""

    def ask(question: str) -> bool:
        if yes:
            return True
        if sys.stdin is None or not sys.stdin.isatty():
            raise QuestionUnanswered(f"{question} There is no terminal to answer on; use --yes to answer yes")
        return typer.confirm(question)

    return ask
