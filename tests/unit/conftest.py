"""`--quick`: the unit tests that need no Great Expectations, for the inner loop (make quick)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

_GX = "great_expectations"


class _SkipAtImport:
    """Skips the test that is about to import Great Expectations, which takes seconds."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == _GX:
            pytest.skip("needs Great Expectations; make unit runs it", allow_module_level=True)
        return None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    parser.addoption("--quick", action="store_true", help="skip the tests that import Great Expectations")


def pytest_configure(config: pytest.Config) -> None:
    """Skip at the import, so that no list of tests has to be kept."""
    if config.getoption("--quick"):
        assert _GX not in sys.modules
        sys.meta_path.insert(0, _SkipAtImport())
