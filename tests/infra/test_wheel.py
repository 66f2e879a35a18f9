"""Tests of the contents of the project's wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deployment import PROJECT_ROOT

PACKAGES = ("blocks", "deployment", "flows", "lambda_trigger")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build the wheel, and return the paths of its files, without those of its metadata."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_contains_every_tracked_file_of_its_packages_and_nothing_else(shipped: set[str]) -> None:
    command = ["git", "ls-files", "--", *PACKAGES]
    listed = subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True, text=True)
    assert shipped == set(listed.stdout.split())


def test_the_wheel_marks_its_packages_as_typed(shipped: set[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped


def test_the_wheel_contains_the_yaml_files_that_the_code_reads(shipped: set[str]) -> None:
    beside_code = [
        path
        for package in PACKAGES
        for path in (PROJECT_ROOT / package).rglob("*.yaml")
        if path.parent.name != "environments"
    ]
    assert {str(Path(path).relative_to(PROJECT_ROOT)) for path in beside_code} <= shipped
