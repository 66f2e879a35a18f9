"""Tests that the packages have the same bytes if they are built from the same sources, and contain no unrelated
files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deployment.aws.packaging import (
    LAMBDA_PACKAGE,
    PackageIncomplete,
    Timeouts,
    build_artifacts,
    definition,
    lambda_zip,
)


def _definition_file(folder: Path, text: str) -> Path:
    path = folder / "machine.asl.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_two_builds_give_the_same_bytes_whatever_times_and_permissions_the_files_have(tmp_path: Path) -> None:
    copy = tmp_path / "lambda_trigger"
    copy.mkdir()
    for path in sorted(LAMBDA_PACKAGE.glob("*.py"), reverse=True):
        shutil.copy(path, copy / path.name)
        os.utime(copy / path.name, (1_000_000_000, 1_000_000_000))
        (copy / path.name).chmod(0o600)
    assert hashlib.sha256(lambda_zip(copy)).hexdigest() == hashlib.sha256(lambda_zip()).hexdigest()


def test_the_zip_contains_the_package_and_nothing_else(tmp_path: Path) -> None:
    copy = shutil.copytree(LAMBDA_PACKAGE, tmp_path / "lambda_trigger")
    (copy / "__pycache__").mkdir(exist_ok=True)
    (copy / "__pycache__" / "handler.cpython-311.pyc").write_bytes(b"stale")
    (copy / "notes.txt").write_text("not code")
    with zipfile.ZipFile(io.BytesIO(lambda_zip(copy))) as archive:
        names = archive.namelist()
    assert names == sorted(f"lambda_trigger/{path.name}" for path in LAMBDA_PACKAGE.glob("*.py"))


def test_lambda_may_read_every_file_in_the_zip() -> None:
    with zipfile.ZipFile(io.BytesIO(lambda_zip())) as archive:
        assert {entry.external_attr >> 16 & 0o777 for entry in archive.infolist()} == {0o644}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_handlers_own_code_needs_the_standard_library_and_boto3_only(tmp_path: Path) -> None:
    """The zip is imported by an interpreter without installed packages. Stubs replace boto3 and botocore, which Lambda
    provides."""
    (tmp_path / "function.zip").write_bytes(lambda_zip())
    for stub in ("boto3/__init__.py", "botocore/__init__.py", "botocore/config.py", "botocore/exceptions.py"):
        (tmp_path / "runtime" / stub).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runtime" / stub).write_text(
            "class ClientError(Exception): ...\nclass Config:\n    def __init__(self, **_): ...\n"
        )
    program = "import lambda_trigger.handler as h; print(callable(h.handle), h.__file__)"
    answer = subprocess.run(
        [sys.executable, "-S", "-E", "-B", "-c", program],
        cwd=tmp_path / "runtime",
        env={},
        capture_output=True,
        text=True,
    )
    assert answer.returncode != 0, "the zip is not on the path yet, so nothing else may provide the package"
    program = f"import sys; sys.path[:0] = [{str(tmp_path / 'function.zip')!r}, '.']; {program}"
    answer = subprocess.run(
        [sys.executable, "-S", "-E", "-B", "-c", program],
        cwd=tmp_path / "runtime",
        env={},
        capture_output=True,
        text=True,
    )
    assert answer.stdout.split() == ["True", f"{tmp_path}/function.zip/lambda_trigger/handler.py"], answer.stderr


def test_a_package_without_a_handler_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(PackageIncomplete):
        lambda_zip(tmp_path)


def test_artifacts_are_named_by_their_content() -> None:
    first, again, other = (build_artifacts(Timeouts(seconds, 600)) for seconds in (50, 50, 60))
    assert first == again
    changed = {one.parameter for one, two in zip(first, other, strict=True) if one.key != two.key}
    assert changed == {"DrainDefinitionKey"}


def test_timeouts_become_numbers_and_other_placeholders_stay() -> None:
    (_, drain) = build_artifacts(Timeouts(task_seconds=60, drain_seconds=600))
    machine = json.loads(drain.body)
    launch = machine["States"]["Launch"]["ItemProcessor"]["States"]["Drain the queue"]
    assert (machine["TimeoutSeconds"], launch["TimeoutSeconds"]) == (600, 60)
    assert launch["Arguments"]["Cluster"] == "${ClusterArn}"


@pytest.mark.parametrize("seconds", [(0, 60), (61, 60), (1, 31_536_001)])
def test_timeouts_that_step_functions_would_reject_are_rejected(seconds: tuple[int, int]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (a programmer's error, which needs no class)
        Timeouts(*seconds)


def test_a_missing_definition_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageIncomplete) as raised:
        definition(tmp_path / "nowhere.asl.json", {})
    assert "nowhere.asl.json" in str(raised.value)


def test_a_definition_that_is_not_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageIncomplete) as raised:
        definition(_definition_file(tmp_path, '{"States": '), {})
    assert "machine.asl.json" in str(raised.value)


def test_a_placeholder_that_is_not_in_the_definition_is_named(tmp_path: Path) -> None:
    """Otherwise, a placeholder that was renamed would reach AWS as a string."""
    with pytest.raises(PackageIncomplete) as raised:
        definition(_definition_file(tmp_path, '{"TimeoutSeconds": "${Timeout}"}'), {"TaskTimeoutSeconds": 1})
    assert "${TaskTimeoutSeconds}" in str(raised.value)
