"""Decides when a task may end. Pure.

A drain relies on the tasks that run when it counts them: they must receive every message that is sent before the
drain's window ends. So a task may end only if a receive call that began after that window found no message
(docs/decisions has the rules and how they were checked).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Poll:
    """One receive call: when it began (seconds since 1970), and how many messages it returned."""

    began: float
    messages: int


def may_leave(poll: Poll, *, stay_until: float) -> bool:
    """Return whether a task may end right after the receive call `poll`. A drain relies on the task until `stay_until`
    (seconds since 1970)."""
    return poll.messages == 0 and poll.began >= stay_until
