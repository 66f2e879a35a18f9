"""The packages in the lock file that belong in the image are selected and written with their hashes."""

from __future__ import annotations

from container.lock import IN_THE_IMAGE, as_requirements, packages

_LOCK = """\
click==8.5.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via typer
pywin32==312 ; sys_platform == 'win32' \\
    --hash=sha256:cc
    # via docker
scipy==1.17.1 ; python_full_version < '3.12' \\
    --hash=sha256:dd
scipy==1.18.1 ; python_full_version >= '3.12' \\
    --hash=sha256:ee
"""


def test_packages_for_other_systems_and_python_versions_are_left_out() -> None:
    assert packages(lock=_LOCK) == {
        "click": ("8.5.1", ["--hash=sha256:aa", "--hash=sha256:bb"]),
        "scipy": ("1.17.1", ["--hash=sha256:dd"]),
    }
    assert packages(IN_THE_IMAGE | {"python_full_version": "3.12.1"}, _LOCK)["scipy"][0] == "1.18.1"


def test_requirements_are_written_in_the_format_of_pip() -> None:
    first, *_ = as_requirements(packages(lock=_LOCK)).splitlines()
    assert first == "click==8.5.1 --hash=sha256:aa --hash=sha256:bb"


def test_every_package_of_the_lock_file_of_the_project_has_hashes() -> None:
    found = packages()
    assert {"prefect", "great-expectations", "pandas", "pyarrow", "boto3"} <= found.keys()
    assert all(hashes for _, hashes in found.values())
