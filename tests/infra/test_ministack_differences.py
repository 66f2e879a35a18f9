"""Tests that every patch of MiniStack is still needed, because MiniStack differs from AWS without it.

If one of these tests fails after an update of MiniStack, delete the patch.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

import pytest

from deployment import PROJECT_ROOT
from tests.emulator.unpatched import STILL_NEEDED

_FOLDERS = (PROJECT_ROOT / "deployment" / "local" / "emulator", PROJECT_ROOT / "tests" / "emulator")
# These modules are not patches for a difference from AWS. Patches import them, or they prepare responses, or record,
# measure or speed up what the emulator does.
_NO_DIFFERENCE = {
    *(
        "decision_record",
        "jsonata_engine",
        "lambda_queue",
        "memory_use",
        "permissions",
        "records",
        "run_task_answers",
        "unpatched",
    ),
    *("warm_process", "warm_tasks"),
}


@pytest.fixture(scope="module")
def still_needed() -> Mapping[str, bool]:
    """Return whether each patch is still needed, by its name. One MiniStack without patches shows this for all of
    them."""
    done = subprocess.run(
        [str(PROJECT_ROOT / ".venv-cloud" / "bin" / "python"), "-m", "tests.emulator.unpatched"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    needed: Mapping[str, bool] = json.loads(done.stdout.splitlines()[-1])
    return needed


@pytest.mark.parametrize("patch", STILL_NEEDED)
def test_ministack_still_differs_from_aws_without_the_patch(still_needed: Mapping[str, bool], patch: str) -> None:
    assert still_needed[patch]


def test_every_patch_is_checked() -> None:
    modules = {path.stem for folder in _FOLDERS for path in folder.glob("[!_]*.py")}
    assert modules - _NO_DIFFERENCE == set(STILL_NEEDED)
