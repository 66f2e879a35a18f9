"""Checks on the text of the Dockerfile. The tests in tests/image build and inspect the image itself."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
_LINES = (_ROOT / "container" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
_INSTRUCTIONS = [tuple(line.split(None, 1)) for line in _LINES if line and not line.startswith("#")]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in _INSTRUCTIONS if instruction == name]


def test_every_stage_uses_the_given_base_image() -> None:
    """The Dockerfile uses no other image, so that a release can pin the base image by its digest."""
    assert of("FROM") == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]


def test_packages_come_only_from_the_lock_files_and_by_hash() -> None:
    installs = [command for command in of("RUN") if "pip" in command and "install" in command]
    for lock, install in zip(["requirements", "steps"], installs, strict=True):
        assert re.search(rf"--require-hashes +-r {lock}\.lock", install)
        assert "--only-binary :all:" in install  # so that no package can run code while it is installed
    assert not [command for command in of("RUN") if re.search(r"\b(apt|apt-get|curl|wget|git)\b", command)]


def test_the_image_runs_as_a_numeric_user() -> None:
    """The user is given as a number, so that ECS and Kubernetes can check that it is not root."""
    assert of("USER") == ["10001:10001"]


def test_no_setting_names_a_secret_and_nothing_is_added() -> None:
    settings = " ".join([*of("ENV"), *of("ARG")])
    assert not re.search(r"(?i)(key|token|secret|password)", settings)
    assert of("ADD") == []


def test_the_build_context_contains_exactly_what_is_copied() -> None:
    let_in = {line[1:] for line in (_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for line in of("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert let_in == {name for name in copied if not any(name.startswith(f"{folder}/") for folder in let_in)}
    assert all((_ROOT / name).exists() for name in copied)
