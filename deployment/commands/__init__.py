"""The commands of `sluice`: one module each, and what they share."""

from rich.console import Console


def new_console(*, stderr: bool = False) -> Console:
    """Return the console that commands print to: it neither wraps lines, which others may parse, nor colours words."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error for the person who typed the command."""
    new_console(stderr=True).out(f"sluice: {message}", style="red")
