"""Snapshots hold the wording of a page of messages, so that the other tests assert classes, codes and values.

After a change of wording, write them again with `SNAPSHOTS=write make unit`, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("snapshots")


def check_snapshot(name: str, text: str) -> None:
    """Compare `text` with the snapshot of that name.

    Raises:
        AssertionError: they differ.
    """
    path = FOLDER / f"{name}.txt"
    if os.environ.get("SNAPSHOTS") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "to accept the new wording: SNAPSHOTS=write make unit"
