"""Locks the packages that datasets' custom steps need, which flows/contracts/requirements.txt lists.

    python -m deployment.step_requirements

This writes requirements.lock, with hashes, if the list or the project's own lock file has changed. The versions are
compatible with the packages that the project itself has locked.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from blocks.settings import CONTRACTS
from deployment import PROJECT_ROOT
from flows.refinery.errors import TerminalError

_CONSTRAINTS = Path("deployment/locks/project.lock")
_LOCK_SECONDS = 600


class RequirementsNotLocked(TerminalError):
    """The lock file of the packages that custom steps need is out of date, or these packages cannot be locked."""


def require_locked(contracts: Path = CONTRACTS) -> None:
    """Raise RequirementsNotLocked unless the lock file in the folder `contracts` is up to date."""
    if not _is_locked(contracts):
        raise RequirementsNotLocked(f"{contracts / 'requirements.lock'} is out of date; update it with: make setup")


def lock(contracts: Path = CONTRACTS) -> bool:
    """Update requirements.lock unless it is current; return whether it changed. Raise RequirementsNotLocked if the
    packages cannot be resolved together with the project's packages."""
    if _is_locked(contracts):
        return False
    locked = contracts / "requirements.lock"
    if not _wanted(contracts):
        locked.write_text("", encoding="utf-8")
        return True
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--universal", "--no-header"]
    command += ["--python-version", "3.11", "--generate-hashes", "--only-binary", ":all:", "-c", str(_CONSTRAINTS)]
    done = subprocess.run(
        [*command, str(contracts / "requirements.txt")],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=_LOCK_SECONDS,
    )
    if done.returncode:
        raise RequirementsNotLocked(f"{contracts / 'requirements.txt'} cannot be locked: {done.stderr.strip()}")
    locked.write_text(_head(contracts) + done.stdout, encoding="utf-8")
    return True


def _is_locked(contracts: Path) -> bool:
    locked = (contracts / "requirements.lock").read_text(encoding="utf-8")
    return locked.startswith(_head(contracts)) if _wanted(contracts) else not locked


def _head(contracts: Path) -> str:
    """Return the first line of the lock file: a hash of the files that it is made from."""
    made_from = _wanted(contracts) + (PROJECT_ROOT / _CONSTRAINTS).read_text(encoding="utf-8")
    return f"# sha256 of what this was made from: {hashlib.sha256(made_from.encode()).hexdigest()}\n"


def _wanted(contracts: Path) -> str:
    lines = (contracts / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def main() -> int:
    """Lock the packages, and return the exit code."""
    try:
        if lock():
            print(f"locked {CONTRACTS / 'requirements.txt'}")  # noqa: T201 (a command's output)
    except RequirementsNotLocked as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
