"""A Python that cannot run the project is reported with advice."""

from __future__ import annotations

import sys

import pytest

from deployment.check_python import problem


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_a_supported_version_is_accepted(version: tuple[int, int]) -> None:
    assert problem(*version, sys.executable) == ""


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 10), (3, 14)])
def test_any_other_version_gets_advice(version: tuple[int, int]) -> None:
    said = problem(*version, "/usr/bin/python3")
    assert "/usr/bin/python3" in said
    assert f"Python {version[0]}.{version[1]}" in said
    assert "make PYTHON=" in said


def test_a_python_without_ensurepip_gets_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert "apt-get install python3.11-venv" in problem(3, 11, "/usr/bin/python3")
