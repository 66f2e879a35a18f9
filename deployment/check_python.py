"""Says in one sentence what is missing before anything is set up. Must run on any Python, however old."""

import sys

OLDEST, NEWEST = (3, 11), (3, 13)


def problem(version):
    """Return what is wrong with this interpreter, or None. `version` is (major, minor)."""
    if version < OLDEST or version > NEWEST:
        return (
            "Sluice needs Python %d.%d to %d.%d, and %s is Python %d.%d. "
            "Install one of these and name it: make PYTHON=python3.11 demo"
        ) % (OLDEST + NEWEST + (sys.executable,) + tuple(version))
    try:
        import ensurepip  # noqa: F401  (asked only whether it is there)
    except ImportError:
        return (
            "Python %d.%d at %s has no venv module. On Debian or Ubuntu: apt-get install python%d.%d-venv"
        ) % (tuple(version) + (sys.executable,) + tuple(version))
    return None


if __name__ == "__main__":
    trouble = problem(sys.version_info[:2])
    if trouble:
        sys.stderr.write(trouble + "\n")
        sys.exit(1)
