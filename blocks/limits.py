"""How long each part may take, derived from what one upload may need: stage ≤ upload ≤ task ≤ message and drain.

The template's parameters decide the first numbers; the state machine, the tasks and `sluice deploy` take the others
from here, so they cannot disagree. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from flows.refinery.errors import TerminalError

MAX_MESSAGE_SECONDS = 43_200  # SQS: twelve hours from the receive, however often it is extended
_SLOWEST_BYTES_PER_SECOND = 6_000_000  # of a download or an upload, which the smallest Fargate task exceeds
_CLOSING_SECONDS = 300  # announce and record what is left, and stop (stopTimeout is 120 seconds)
_STARTING_SECONDS = 600  # capacity, image, interpreter
_MIN_DRAIN_SECONDS = 43_200
_GIB = 1024**3
_DISK_OF_IMAGE_GIB = 1
COPY_FRACTION = 0.25
"""A larger upload than this part of the free disk is read from S3 by ranges. On the disk are its outputs then, and
otherwise also the upload."""
_MIN_MEMORY_MIB = 1_024


class LimitsInconsistent(TerminalError):
    """Parameters of the stack contradict each other: a file that is allowed could never be processed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the stack allows.

    Attributes:
        stage_seconds: how long the stage refine may take, each time.
        lifetime_seconds: after this long a task begins no further upload.
        max_object_bytes: the largest upload.
    """

    stage_seconds: int = 1_500
    lifetime_seconds: int = 3_000
    max_object_bytes: int = 10 * _GIB

    @classmethod
    def of_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read the template's parameters; those that a stack of an earlier release lacks have their defaults."""
        fields = {
            "stage_seconds": "StageTimeoutSeconds",
            "lifetime_seconds": "TaskLifetimeSeconds",
            "max_object_bytes": "MaxObjectBytes",
        }
        return cls(**{field: int(parameters[name]) for field, name in fields.items() if name in parameters})

    @property
    def upload_seconds(self) -> int:
        """Return how long one upload takes at most: fetch, refine, publish."""
        return self.stage_seconds + 2 * -(-self.max_object_bytes // _SLOWEST_BYTES_PER_SECOND)

    @property
    def task_seconds(self) -> int:
        """Return after how long a task ends whatever it does: it began its last upload within its lifetime."""
        return self.lifetime_seconds + self.upload_seconds + _CLOSING_SECONDS

    @property
    def launch_seconds(self) -> int:
        """Return how long the state machine waits for a task: it is launched, and ends by itself before this."""
        return self.task_seconds + _STARTING_SECONDS

    @property
    def drain_seconds(self) -> int:
        """Return how long a drain runs at most: several tasks, one after the other."""
        return max(_MIN_DRAIN_SECONDS, 3 * self.launch_seconds)

    def check(self, *, disk_gib: int, memory_mib: int) -> None:
        """Raise LimitsInconsistent unless every allowed upload fits time, disk and memory. A task's messages are
        invisible for as long as it runs, since it receives them ten at a time."""
        if self.task_seconds > MAX_MESSAGE_SECONDS:
            excess = self.task_seconds - MAX_MESSAGE_SECONDS
            raise LimitsInconsistent(
                f"a task may run for {self.task_seconds:,} s (TaskLifetimeSeconds + StageTimeoutSeconds + twice the "
                f"time to transfer MaxObjectBytes), and SQS hides a message for {MAX_MESSAGE_SECONDS:,} s at most: "
                f"lower TaskLifetimeSeconds or StageTimeoutSeconds by {excess:,}"
            )
        largest_gib = self.max_object_bytes / _GIB
        copied, by_ranges = (
            2 * largest_gib + _DISK_OF_IMAGE_GIB,
            (largest_gib + _DISK_OF_IMAGE_GIB) / (1 - COPY_FRACTION),
        )
        needed_gib = math.ceil(min(copied, by_ranges))
        if needed_gib > disk_gib:
            raise LimitsInconsistent(
                f"an upload of MaxObjectBytes = {self.max_object_bytes:,} and its outputs need {needed_gib} GiB of "
                f"disk: set TaskEphemeralStorageGiB={needed_gib}, or lower MaxObjectBytes to "
                f"{int((disk_gib * (1 - COPY_FRACTION) - _DISK_OF_IMAGE_GIB) * _GIB):,}"
            )
        if memory_mib < _MIN_MEMORY_MIB:
            raise LimitsInconsistent(
                f"TaskMemory={memory_mib} is not enough for files of any size: set TaskMemory={_MIN_MEMORY_MIB} or more"
            )
