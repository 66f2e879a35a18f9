"""Base classes for errors. A retry can succeed after a transient error, but not after a terminal one."""

import re
from typing import ClassVar


class SluiceError(Exception):
    """Base class for the errors of the pipeline and the commands. Messages state what is wrong, where, and what to
    do."""

    code: ClassVar[str] = "sluice_error"  # the class's name in snake_case, as receipts and attempts record it

    def __init_subclass__(cls) -> None:
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class TransientError(SluiceError):
    """Base class for errors after which a retry of the same work can succeed."""


class TerminalError(SluiceError):
    """Base class for errors after which every retry of the same work would fail."""

    part: str | None = None  # the part of `refine` that failed (read, validate, preprocess or write), if any


class FileRejected(TerminalError):
    """The file cannot be published under its contract; its receipt has the reason. There is one subclass per cause."""
