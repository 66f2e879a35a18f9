"""What makes unit tests fast, and `--quick`, which skips those that import Great Expectations or take seconds each
(make quick)."""

from __future__ import annotations

import gc
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
    parser.addoption("--quick", action="store_true", help="skip tests that import Great Expectations, and heavy ones")


def pytest_configure(config: pytest.Config) -> None:
    """Skip at the import, so that no list of tests has to be kept."""
    if config.getoption("--quick"):
        assert _GX not in sys.modules
        sys.meta_path.insert(0, _SkipAtImport())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that take seconds each."""
    if config.getoption("--quick"):
        heavy = pytest.mark.skip(reason="takes seconds; make unit runs it")
        for item in items:
            if item.get_closest_marker("heavy"):
                item.add_marker(heavy)


@pytest.fixture(autouse=True, scope="module")
def _imports_are_no_garbage() -> None:
    """Keep modules and AWS models out of the collection after each partition: it then takes 2 ms, not 100."""
    gc.freeze()
