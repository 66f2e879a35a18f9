"""The base classes of errors: transient ones, which may not occur again, and terminal ones, which will."""

import re
from typing import ClassVar


class SluiceError(Exception):
    """Base class of the pipeline's and commands' errors. The message states what is wrong, where, and what to do."""

    code: ClassVar[str] = "sluice_error"  # the class's name in snake_case: the cause in receipts and attempts

    def __init_subclass__(cls) -> None:
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class TransientError(SluiceError):
    """The same work may succeed when it is tried again."""


class TerminalError(SluiceError):
    """The same work will fail again, however often it is tried."""

    part: str | None = None  # the part of `refine` that failed: read, validate, preprocess or write; None outside of it


class FileRejected(TerminalError):
    """The file can never be published as it is; its receipt has the reason. One subclass per cause."""
