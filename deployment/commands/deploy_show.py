"""Prints where `sluice deploy` deploys to, what it changes, and CloudFormation's events as they occur."""

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from deployment.aws.access import Access
from deployment.aws.stack import Change, StackEvent

Ask = Callable[[str], bool]
"""A function that asks the user a yes-or-no question, and returns True for yes."""

_ACTION_STYLES = {"Add": "green", "Modify": "yellow", "Remove": "red", "Import": "cyan"}
_MAX_WHAT = 6


def show_destination(console: Console, access: Access, facts: Mapping[str, str]) -> None:
    """Print the account, region and caller of a command, followed by the names and values in `facts`."""
    lines = {
        "account": access.account_id,
        "region": access.region,
        "as": access.caller,
        **({"instead of AWS": access.endpoint_url} if access.endpoint_url else {}),
        **facts,
    }
    width = max(map(len, lines))
    for name, value in lines.items():
        console.out(f"{name:<{width}}  {value}")


def show_changes(console: Console, changes: Sequence[Change]) -> None:
    """Print the changes in a change set, one per line, and mark resources that are replaced."""
    if not changes:
        console.print("The stack is up to date: nothing to change.")
        return
    kinds = {action: sum(change.action == action for change in changes) for action in _ACTION_STYLES}
    counted = ", ".join(f"{count} to {action.lower()}" for action, count in kinds.items() if count)
    console.print(f"\nChanges: {counted}", style="bold")
    width = max(len(change.resource) for change in changes)
    # These are plain lines, because a table would truncate long names on a narrow terminal or in a log.
    for change in sorted(changes, key=lambda one: (list(_ACTION_STYLES).index(one.action), one.resource)):
        style = _ACTION_STYLES[change.action]
        line = f"  [{style}]{change.action:<6}[/]  {escape(change.resource):<{width}}  {change.resource_type:<38}"
        console.print(f"{line}  {_note(change)}".rstrip())
    console.print()


def _note(change: Change) -> str:
    what = ", ".join(change.what[:_MAX_WHAT]) + (", ..." if len(change.what) > _MAX_WHAT else "")
    replaced = "[yellow]may be replaced[/]" if change.may_replace else ""
    replaced = "[red bold]REPLACED[/]" if change.replaces else replaced
    return "  ".join(filter(None, (replaced, escape(what))))


class EventLog:
    """Prints a stack's CloudFormation events as they occur."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()

    def __call__(self, event: StackEvent) -> None:
        """Print an event with its time, in seconds since this object was created."""
        style = "red" if "FAILED" in event.status or "ROLLBACK" in event.status else ""
        style = style or ("green" if event.status.endswith("_COMPLETE") else "dim")
        line = f"{time.monotonic() - self._begun:6.1f} s  {event.status:<28}  {event.resource}  {event.reason}"
        self._console.out(line.rstrip(), style=style)
