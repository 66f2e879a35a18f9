"""Checks that Sluice supports the Python interpreter, before anything is set up. Must run on Python 3.6 and later."""

import sys

OLDEST, NEWEST = (3, 11), (3, 13)


def problem(major: int, minor: int, executable: str) -> str:
    """Return why an interpreter of this version cannot be used, or "" if it can."""
    if not OLDEST <= (major, minor) <= NEWEST:
        return (
            "Sluice needs Python {}.{} to {}.{}, but {} is Python {}.{}. "
            "Install a supported version and select it, for example: make PYTHON=python3.11 demo"
        ).format(*OLDEST, *NEWEST, executable, major, minor)
    try:
        import ensurepip  # noqa: F401  (only to see whether it can be imported)
    except ImportError:
        return (
            f"{executable} has no ensurepip module, so no virtual environment can be created. "
            f"On Debian or Ubuntu: apt-get install python{major}.{minor}-venv"
        )
    return ""


if __name__ == "__main__":
    trouble = problem(sys.version_info[0], sys.version_info[1], sys.executable)
    if trouble:
        sys.stderr.write(trouble + "\n")
        sys.exit(1)
