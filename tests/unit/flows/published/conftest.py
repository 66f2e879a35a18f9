"""Fixtures for reading published data: a pipeline whose contracts are written by the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flows.refinery.contract.loading import Contracts
from tests.unit.flows.conftest import Account

Declare = Callable[[str, str], None]


@pytest.fixture
def declare(account: Account, tmp_path: Path) -> Declare:
    """Return a function that writes a contract. The account's pipeline uses only contracts written this way."""
    root = tmp_path / "contracts"
    (root / "default").mkdir(parents=True)
    (root / "default" / "contract.yaml").write_text("dataset: default\n")

    def write(dataset: str, text: str) -> None:
        (root / dataset).mkdir(exist_ok=True)
        (root / dataset / "contract.yaml").write_text(f"dataset: {dataset}\n{text}")
        account.parts = replace(account.parts, read_contracts=lambda: Contracts.load(root))

    return write
