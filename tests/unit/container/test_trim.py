"""trim.py deletes unused files, and keeps files that are needed although they look unused."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).resolve().parents[3]
_TRIM = _ROOT / "container" / "trim.py"
_CLIENT = re.compile(r"\bclient(?:_of)?\(\"([a-z0-9-]+)\"")


@pytest.fixture(scope="module")
def trim() -> ModuleType:
    """Load the script trim.py, which is not part of a package because it runs while the image is built."""
    spec = importlib.util.spec_from_file_location("trim", _TRIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 10)


def test_tests_headers_and_pip_are_deleted_and_their_bytes_counted(trim: ModuleType, tmp_path: Path) -> None:
    gone = ["pandas/tests/test_a.py", "pyarrow/include/arrow.h", "pip/__init__.py", "scipy/stats/tests/test_b.py"]
    put(tmp_path, *gone, "pandas/core/frame.py")
    assert trim.trim(tmp_path) == 40
    assert not any((tmp_path / name).exists() for name in gone)
    assert (tmp_path / "pandas/core/frame.py").exists()


def test_files_that_are_needed_although_they_look_unused_stay(trim: ModuleType, tmp_path: Path) -> None:
    kept = ["numpy/f2py/__init__.py", "numpy/testing/__init__.py", "pyarrow/libarrow_substrait.so.2600"]
    put(tmp_path, *kept)
    assert trim.trim(tmp_path) == 0
    assert all((tmp_path / name).exists() for name in kept)


def test_only_services_that_are_called_keep_their_botocore_data(trim: ModuleType, tmp_path: Path) -> None:
    put(tmp_path, "botocore/data/s3/x.json", "botocore/data/iot/x.json", "botocore/data/endpoints.json")
    trim.trim(tmp_path)
    assert sorted(path.name for path in (tmp_path / "botocore" / "data").iterdir()) == ["endpoints.json", "s3"]


def test_every_service_that_the_code_in_the_image_calls_keeps_its_botocore_data(trim: ModuleType) -> None:
    sources = [path for folder in ("blocks", "flows", "lambda_trigger") for path in (_ROOT / folder).rglob("*.py")]
    called = {service for path in sources for service in _CLIENT.findall(path.read_text())}
    assert {"s3", "sqs", "stepfunctions", "cloudwatch"} <= called
    assert called <= trim.AWS_SERVICES
