"""Marks a state folder with the version of Sluice that created it, because other minor versions cannot use it."""

from pathlib import Path

from deployment.local.errors import StateOutdated
from flows import __version__

FILE_NAME = "version"
_WRITTEN_BY_EVERY_VERSION = ("cloud.json", "cloud")


def claim_state(state_dir: Path, version: str = __version__) -> None:
    """Mark a new state folder with this version of Sluice. Raise StateOutdated if the folder has state from a different
    minor version, or from a version that left no mark."""
    marker, wanted = state_dir / FILE_NAME, ".".join(version.split(".")[:2])
    if any((state_dir / name).exists() for name in _WRITTEN_BY_EVERY_VERSION):
        found = marker.read_text().strip() if marker.exists() else ""
        if found != wanted:
            maker = f"Sluice {found}" if found else "an earlier version of Sluice"
            raise StateOutdated(
                f"The local state in {state_dir} was created by {maker}, so Sluice {wanted} cannot use it. "
                f"Delete it (uploads, receipts and flow runs) with: sluice clean --state {state_dir}"
            )
    marker.write_text(f"{wanted}\n")
