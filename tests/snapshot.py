"""Snapshots of the wording of messages, so that other tests need to assert only classes, codes and values.

After you reword a message, update the snapshots with `SNAPSHOTS=write make unit`, and review the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("snapshots")


def check_snapshot(name: str, text: str) -> None:
    """Compare `text` with the snapshot `name`, or write the snapshot first if SNAPSHOTS=write.

    Raises:
        AssertionError: the text differs from the snapshot.
    """
    path = FOLDER / f"{name}.txt"
    if os.environ.get("SNAPSHOTS") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "to accept the new wording: SNAPSHOTS=write make unit"
