"""Freed memory is returned to the operating system while a large file is refined."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.refinery import freed_memory
from flows.refinery.refine import refine_file
from tests.unit.flows.refinery.tables import a_contract


def test_memory_is_returned_after_every_eighth_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[int] = []
    monkeypatch.setattr(freed_memory, "return_freed_memory", lambda: returned.append(1))
    path, work_dir = tmp_path / "upload", tmp_path / "work"
    path.write_text("n\n" + "1\n" * 20)
    work_dir.mkdir()
    refined = refine_file(path, a_contract(), work_dir, rows_per_partition=1)
    assert refined.rows_in == 20
    assert len(returned) == 2
