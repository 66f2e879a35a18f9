"""Turns file system errors for paths that the user gave into error messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.refinery.errors import TerminalError


class PathUnwritable(TerminalError):
    """A path that the user gave cannot be written, for example because its folder does not exist, is a file, or is
    protected."""


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Raise PathUnwritable, with the path and the reason, if the block raises an OSError."""
    try:
        yield
    except OSError as error:
        refused = Path(str(error.filename or path))
        where = "" if refused == path else f" at {refused}"
        raise PathUnwritable(
            f"{path} cannot be written ({error.strerror or error}{where}); use a path in an existing, writable folder"
        ) from error
