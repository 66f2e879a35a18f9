"""The two kinds of failure: one that may pass when tried again, and one that never will."""

from __future__ import annotations


class SluiceError(Exception):
    """Base of all errors of Sluice. The message states what is wrong, where, and what to do."""


class TransientError(SluiceError):
    """The same work may succeed when it is tried again."""


class TerminalError(SluiceError):
    """The same work will fail again, however often it is tried.

    Attributes:
        part: the part of `refine` that failed: read, validate, preprocess or write; None outside of it.
    """

    part: str | None = None


class FileRejected(TerminalError):
    """The file can never be published as it is; its receipt has the reason. One subclass per cause.

    Attributes:
        code: the cause as the receipt names it, in snake_case.
    """

    code = "file_rejected"
