"""Errors that end the run of an upload. Most of them are not caused by the file itself."""

from flows.refinery.errors import FileRejected, TerminalError, TransientError


class StageBroke(TransientError):
    """A stage failed with an unexpected exception, or did not account for every row: there is a bug in Sluice, or the
    machine ran out of a resource.

    The message names the type and location of the exception, but never its text, which may quote data. The upload stays
    in the queue and is tried again; after the maximum number of deliveries it moves to the dead-letter queue.
    """


class OutOfMemory(TransientError):
    """A stage ran out of memory: the task is too small.

    The upload stays in the queue and is tried again; after the maximum number of deliveries it moves to the dead-letter
    queue. Redrive it once the task has more memory.
    """


class StageTookTooLong(TransientError):
    """The refine stage took longer than `stage_timeout_seconds` for the first time, or in a manual run.

    The machine may have been busy, so the message is returned and the upload is tried again. A manual run is not
    repeated.
    """


class TakesTooLong(FileRejected):
    """The refine stage took longer than `stage_timeout_seconds` for the second time in a row. Either a custom step
    of the dataset never ends, or the file is too large for the task."""


class ContractUnusable(TransientError):
    """The contract of the upload's dataset cannot be used. Either the published contract is invalid or does not match
    this release or the dataset's steps.py, or a contract in the image is invalid.

    The file is not rejected: the upload stays in the queue and is tried again; after the maximum number of deliveries
    it moves to the dead-letter queue. Publish a correct contract, roll back to the previous one, or deploy, and then
    redrive the dead-letter queue.
    """


class TaskDied(TransientError):
    """The task that held the upload ended before the upload was done: it was killed or stopped, or ran out of memory.

    The message is delivered again, and another task records this error as the reason.
    """


class TaskTooSmall(TerminalError):
    """Two tasks ran out of memory and were killed while they refined the upload.

    Its message moves to the dead-letter queue. Give the task more memory, and redrive the dead-letter queue.
    """


class NoUpload(TerminalError):
    """A message names an object outside the landing bucket's incoming prefix, so it moves to the dead-letter queue."""


class EventLost(TransientError):
    """No event for the upload arrived, or its message expired. Reconcile found the upload and sent a new message."""


class UploadCancelled(TerminalError):
    """A person cancelled the upload's flow run. The message moves to the dead-letter queue; nothing is published."""


class RepairRejected(TerminalError):
    """The file would be rejected with the corrected rows. Nothing was changed; the earlier receipt remains valid."""
