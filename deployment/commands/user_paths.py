"""Writing where the user said: what the file system refuses is told with the path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.refinery.errors import TerminalError


class PathUnwritable(TerminalError):
    """Nothing can be written to a path that the user gave: its folder is not there, is a file, or is protected."""


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Raise what the file system says of `path` as an error of the user's.

    Raises:
        PathUnwritable: with the path and the reason.
    """
    try:
        yield
    except OSError as error:
        refused = Path(str(error.filename or path))
        where = "" if refused == path else f" at {refused}"
        raise PathUnwritable(
            f"{path} cannot be written ({error.strerror or error}{where}); give a path in a folder that is there and "
            "may be written"
        ) from error
