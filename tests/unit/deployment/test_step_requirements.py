"""The packages that custom steps need are locked with hashes, and locked again only if the requirements change."""

from pathlib import Path

import pytest

from deployment.step_requirements import RequirementsNotLocked, lock, require_locked


def contracts(folder: Path, requirements: str, locked: str = "") -> Path:
    (folder / "requirements.txt").write_text(requirements)
    (folder / "requirements.lock").write_text(locked)
    return folder


def test_the_shipped_requirements_are_locked() -> None:
    require_locked()


def test_without_packages_there_is_nothing_to_lock(tmp_path: Path) -> None:
    assert not lock(contracts(tmp_path, "# none\n"))


def test_removing_the_last_package_empties_the_lock_file(tmp_path: Path) -> None:
    folder = contracts(tmp_path, "# none\n", "six==1.17.0 --hash=sha256:0\n")
    with pytest.raises(RequirementsNotLocked):
        require_locked(folder)
    assert lock(folder)
    require_locked(folder)


@pytest.mark.heavy
def test_packages_are_locked_once_with_hashes_and_in_the_versions_of_the_project(tmp_path: Path) -> None:
    folder = contracts(tmp_path, "numpy\n")
    with pytest.raises(RequirementsNotLocked):
        require_locked(folder)
    assert lock(folder)
    require_locked(folder)
    locked = (folder / "requirements.lock").read_text()
    project = Path("deployment/locks/project.lock").read_text()
    (numpy,) = [line for line in locked.splitlines() if line.startswith("numpy==")]
    assert numpy in project.splitlines()
    assert "--hash=sha256:" in locked
    assert not lock(folder)
    (folder / "requirements.txt").write_text("numpy<1\n")
    with pytest.raises(RequirementsNotLocked):
        require_locked(folder)
    with pytest.raises(RequirementsNotLocked, match="numpy"):
        lock(folder)
