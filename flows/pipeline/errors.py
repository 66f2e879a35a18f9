"""What ends an upload's run besides the file itself. Messages name the exception's type and place, never its text:
pandas quotes values in its messages."""

from __future__ import annotations

from flows.refinery.errors import FileRejected, TerminalError, TransientError


class StageBroke(TransientError):
    """A stage failed in a way that Sluice does not expect: a fault of Sluice, or the machine ran out of something.

    The message names the exception's type and place, never its text, which may quote data. The upload stays in
    the queue and is tried again; after the queue's limit it rests in the dead-letter queue.
    """


class OutOfMemory(TransientError):
    """A stage asked for more memory than there is: the task's fault, not the file's.

    The upload stays in the queue and is tried again; after the queue's limit it rests in the dead-letter queue, from
    which a task with more memory can take it.
    """


class StageTookTooLong(TransientError):
    """Refining took longer than `stage_timeout_seconds`, for the first time with this upload.

    The machine may have been busy, so the message is returned and the upload is tried again.
    """


class TakesTooLong(FileRejected):
    """Refining took longer than `stage_timeout_seconds` twice: a custom step of the dataset may never end, or the file
    is too large for the task."""


class RepairRejected(TerminalError):
    """With the corrected rows the file would be rejected. Nothing was changed: the earlier receipt still counts."""
