"""The contract's steps on the good rows, and the files that come out."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def whole_table(function: Function) -> Function:
    """Mark a function of a dataset's steps.py that needs all good rows at once, as a rank or a share of a total does.
    Other functions get the rows piece by piece: a file of any size fits in memory."""
    function.needs_whole_table = True  # type: ignore[attr-defined] # a function may have attributes
    return function
