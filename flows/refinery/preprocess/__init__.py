"""A contract's preprocessing steps, applied to the good rows."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def whole_table(function: Function) -> Function:
    """Mark a function of a dataset's steps.py that needs all good rows at once, for example to rank them. Other
    functions get the rows in pieces, so that a file of any size fits in memory."""
    function.needs_whole_table = True  # type: ignore[attr-defined] # a function may have attributes
    return function
