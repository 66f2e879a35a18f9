"""Settings for all unit tests, and the option `--quick` of `make quick`.

The option skips tests that import Great Expectations or are marked as heavy.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

_GX = "great_expectations"


class _SkipAtImport:
    """Import hook that skips the test or the module that is about to import Great Expectations, which takes seconds."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == _GX:
            pytest.skip("needs Great Expectations; make unit runs it", allow_module_level=True)
        return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="skip tests that import Great Expectations, and heavy ones")


def pytest_configure(config: pytest.Config) -> None:
    """With --quick, skip tests when they import Great Expectations, so that nobody has to maintain a list of them."""
    if config.getoption("--quick"):
        assert _GX not in sys.modules
        sys.meta_path.insert(0, _SkipAtImport())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --quick, skip the tests that are marked as heavy, because they take seconds each."""
    if config.getoption("--quick"):
        heavy = pytest.mark.skip(reason="takes seconds; make unit runs it")
        for item in items:
            if item.get_closest_marker("heavy"):
                item.add_marker(heavy)


@pytest.fixture(autouse=True, scope="module")
def _imports_are_no_garbage() -> None:
    """Exclude modules and AWS models from garbage collection, which then takes 2 ms per partition instead of 100 ms."""
    gc.freeze()
