"""Time limits of a stage, an upload, a task, a message and a drain, each long enough for the one before it.

`Limits` contains the limits that the template's parameters set, and calculates the others from them. The tasks, the
timeouts of the state machine and `sluice deploy` are all based on it, so that they cannot disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from flows.refinery.errors import TerminalError

# SQS hides a message for at most twelve hours after the receive call, no matter how often the timeout is extended.
MAX_MESSAGE_SECONDS = 43_200
_SLOWEST_BYTES_PER_SECOND = 6_000_000  # the smallest Fargate task transfers faster than this
_CLOSING_SECONDS = 300  # to announce and record the remaining outcomes, and to stop (stopTimeout is 120 seconds)
_STARTING_SECONDS = 600  # to find capacity, pull the image and start Python
_MIN_DRAIN_SECONDS = 43_200
GIB = 1024**3
DISK_OF_IMAGE_GIB = 1
COPY_FRACTION = 0.25
"""An upload larger than this fraction of the free disk space is not copied to the disk but read from S3 in ranges, so
that the disk has room for output files and for rows that wait for the end of the file."""
_MIN_MEMORY_MIB = 1_024


class LimitsInconsistent(TerminalError):
    """Parameters of the stack contradict each other, so that some files of an allowed size could never be processed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that the template's parameters set.

    Attributes:
        stage_seconds: how long the refine stage may take each time an upload is tried.
        lifetime_seconds: the age after which a task does not start another upload.
        max_object_bytes: the size of the largest upload that is processed.
    """

    stage_seconds: int = 1_500
    lifetime_seconds: int = 3_000
    max_object_bytes: int = 10 * GIB

    @classmethod
    def of_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read the limits from the template's parameters. A parameter that an older stack does not have gets its
        default."""
        fields = {
            "stage_seconds": "StageTimeoutSeconds",
            "lifetime_seconds": "TaskLifetimeSeconds",
            "max_object_bytes": "MaxObjectBytes",
        }
        return cls(**{field: int(parameters[name]) for field, name in fields.items() if name in parameters})

    @property
    def upload_seconds(self) -> int:
        """Return how long fetching, refining and publishing one upload may take."""
        return self.stage_seconds + 2 * -(-self.max_object_bytes // _SLOWEST_BYTES_PER_SECOND)

    @property
    def task_seconds(self) -> int:
        """Return how long a task may run, given that its last upload may begin at the very end of its lifetime."""
        return self.lifetime_seconds + self.upload_seconds + _CLOSING_SECONDS

    @property
    def launch_seconds(self) -> int:
        """Return how long the state machine waits for a task that it has launched. The task ends itself before that."""
        return self.task_seconds + _STARTING_SECONDS

    @property
    def drain_seconds(self) -> int:
        """Return how long a drain may run: long enough for three consecutive tasks, and at least 12 hours."""
        return max(_MIN_DRAIN_SECONDS, 3 * self.launch_seconds)

    def check(self, *, memory_mib: int) -> None:
        """Raise LimitsInconsistent if a task could run, and so hold a message, for longer than SQS hides a message, or
        if its memory is too small for any file. Whether the disk is large enough depends on the contracts
        (deployment/aws/task_disk.py)."""
        if self.task_seconds > MAX_MESSAGE_SECONDS:
            excess = self.task_seconds - MAX_MESSAGE_SECONDS
            raise LimitsInconsistent(
                f"a task may run for {self.task_seconds:,} s (TaskLifetimeSeconds + StageTimeoutSeconds + twice the "
                f"time to transfer MaxObjectBytes), and SQS hides a message for {MAX_MESSAGE_SECONDS:,} s at most: "
                f"lower TaskLifetimeSeconds or StageTimeoutSeconds by {excess:,}"
            )
        if memory_mib < _MIN_MEMORY_MIB:
            raise LimitsInconsistent(
                f"TaskMemory={memory_mib} is too small for any file: set TaskMemory={_MIN_MEMORY_MIB} or more"
            )
