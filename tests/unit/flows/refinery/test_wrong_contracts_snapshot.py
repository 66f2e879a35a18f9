"""The error messages for invalid contracts match the snapshot."""

from __future__ import annotations

from pathlib import Path

from tests.snapshot import check_snapshot
from tests.unit.flows.refinery.wrong_contracts import messages


def test_the_messages_for_wrong_contracts_match_the_snapshot(tmp_path: Path) -> None:
    page = "\n".join(f"{text}>>> {message}\n" for text, message in messages(tmp_path))
    check_snapshot("contract_errors", page.replace(f"{tmp_path}/", ""))
