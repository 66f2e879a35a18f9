"""When a task may leave the queue. Pure.

A drain relies on the tasks that it counts: whatever arrives before its window ends, they will see. SQS may deliver a
message to any consumer at any time, so a task may leave only when a receive call found nothing that began after
everything that the task is relied on for had been sent (docs/decisions names the rules and how they were checked).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Poll:
    """One receive call: when it began (seconds since 1970), and how many messages came."""

    began: float
    messages: int


def may_leave(poll: Poll, *, stay_until: float) -> bool:
    """Return whether a task may leave after its last receive call, if it does nothing in between. The drain relies on
    it until `stay_until` (seconds since 1970)."""
    return poll.messages == 0 and poll.began >= stay_until
