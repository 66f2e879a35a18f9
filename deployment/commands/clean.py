"""`sluice clean`: deletes the local cloud's state."""

import shutil
from pathlib import Path

from rich.console import Console

from deployment.local import state_version
from deployment.local.processes import end_leftovers
from deployment.local.state_lock import StateLock

# Only these are deleted, so that nobody loses files by mistyping the state folder.
_OURS = (
    *("cloud", "prefect", "logs", "home", "tmp", "tasks", "demo", "processes"),
    *("cloud.json", state_version.FILE_NAME),
)
_CACHE = "cache"


def clean(console: Console, state_dir: Path, *, cache_too: bool) -> None:
    """Delete the local cloud's state in `state_dir` and, if `cache_too` is set, its cache. Raise LocalCloudBusy if a
    local cloud is using this folder."""
    if not (state_dir / "lock").exists():
        console.print(f"There is nothing to clean in {state_dir}.")
        return
    lock = StateLock(state_dir)
    lock.acquire()
    try:
        end_leftovers(state_dir / "processes")
        for name in (*_OURS, _CACHE) if cache_too else _OURS:
            path = state_dir / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    finally:
        lock.release()
    (state_dir / "lock").unlink()
    if not any(state_dir.iterdir()):
        state_dir.rmdir()
    console.print(f"Deleted the local cloud's state in {state_dir}.")
