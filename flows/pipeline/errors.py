"""Errors that end an upload's run; most are not the file's fault."""

from flows.refinery.errors import FileRejected, TerminalError, TransientError


class StageBroke(TransientError):
    """A stage failed with an unexpected exception: there is a bug in Sluice, or the machine ran out of a resource.

    The message names the exception's type and place, never its text, which may quote data. The upload stays in
    the queue and is tried again; after the maximum number of deliveries it moves to the dead-letter queue.
    """


class OutOfMemory(TransientError):
    """A stage ran out of memory: the task is too small.

    The upload stays in the queue and is tried again; after the maximum number of deliveries it moves to the dead-letter
    queue. Redrive it once the task has more memory.
    """


class StageTookTooLong(TransientError):
    """The stage refine took longer than `stage_timeout_seconds` at the first delivery of the upload.

    The machine may have been busy, so the message is returned and the upload is tried again.
    """


class TakesTooLong(FileRejected):
    """The stage refine took longer than `stage_timeout_seconds` at a repeated delivery of the upload: a custom step of
    the dataset may never end, or the file is too large for the task."""


class ContractUnusable(TransientError):
    """The contract of the upload's dataset cannot be used: the published one is invalid, or does not fit this release
    or the dataset's steps.py; or a contract in the image is invalid.

    The file is not at fault: the upload stays in the queue and is tried again; after the maximum number of deliveries
    it moves to the dead-letter queue. Publish a correct contract, roll it back, or deploy; then redrive.
    """


class TaskDied(TransientError):
    """The task that held the upload ended before the upload was done: it was killed or stopped, or ran out of memory.

    The message is delivered again; the task that receives it writes this error as the reason.
    """


class TaskTooSmall(TerminalError):
    """Two tasks were killed for lack of memory while they refined the upload.

    Its message moves to the dead-letter queue. Give the task more memory, and redrive the dead-letter queue.
    """


class NoUpload(TerminalError):
    """A message names an object outside the landing bucket's incoming prefix. It moves to the dead-letter queue."""


class EventLost(TransientError):
    """No event for the upload arrived, or its message expired. Reconcile found the upload and sent a message for it."""


class UploadCancelled(TerminalError):
    """A person cancelled the upload's flow run. Its message moves to the dead-letter queue; nothing is published."""


class RepairRejected(TerminalError):
    """With the corrected rows the file would be rejected. Nothing was changed: the earlier receipt still counts."""
