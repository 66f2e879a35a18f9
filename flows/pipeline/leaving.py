"""Decides when a task may end.

A drain relies on the tasks that are running when it counts them: they must receive every message that is sent before
the drain's window ends. So a task may end only if a receive call that began after that window found no message
(docs/architecture.md describes the rules and how they are tested).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Poll:
    """A receive call: when it began (seconds since 1970), and how many messages it returned."""

    began: float
    messages: int


def may_leave(poll: Poll, *, stay_until: float) -> bool:
    """Return whether a task may end right after the receive call `poll`. `stay_until` is the time (seconds since 1970)
    until which a drain relies on the task."""
    return poll.messages == 0 and poll.began >= stay_until
