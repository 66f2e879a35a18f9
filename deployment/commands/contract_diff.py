"""`sluice contract diff`: shows how two versions of a contract differ."""

from rich.console import Console
from rich.markup import escape

from flows.refinery.contract.diff import Effect, changes_between
from flows.refinery.contract.model import Contract

_STYLES = {Effect.STRICTER: "yellow", Effect.LOOSER: "green", Effect.NONE: "dim"}


def show_changes(console: Console, old: Contract, new: Contract) -> None:
    """Print every change from `old` to `new`, beginning with the rules that get stricter."""
    changes = changes_between(old, new)
    same = old.content_hash == new.content_hash
    if not changes:
        console.print("The two contracts are the same." if same else "The two contracts differ in wording only.")
    width = max((len(change.effect) for change in changes), default=0)
    for change in changes:
        style = _STYLES.get(change.effect, "cyan")
        console.print(f"[{style}]{change.effect:<{width}}[/]  {escape(change.message)}")
