"""The steps in a contract's `preprocess` section, which change the rows that passed validation."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def whole_table(function: Function) -> Function:
    """Mark a function in a dataset's steps.py that needs all good rows at once, for example to rank them. A function
    without this mark gets the rows in pieces, so that a file of any size fits in memory."""
    function.needs_whole_table = True  # type: ignore[attr-defined] # a function may have attributes
    return function
