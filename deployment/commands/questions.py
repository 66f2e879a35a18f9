"""Asks for confirmation before a command changes something."""

import sys
from collections.abc import Callable

import typer

from flows.refinery.errors import TerminalError


class QuestionUnanswered(TerminalError):
    """A question needs an answer, but there is no terminal to answer on."""


def asking(*, yes: bool) -> Callable[[str], bool]:
    """Return a function that asks a yes-or-no question; with `yes` it returns True without asking. Without a terminal
    it raises QuestionUnanswered."""

    def ask(question: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise QuestionUnanswered(f"{question} There is no terminal to answer on; --yes answers yes")
        return typer.confirm(question)

    return ask
