"""Inspection of an image from the inside, done once for all tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.image.engine import Engine

_INSIDE = Path(__file__).with_name("look_inside.py")


@dataclass(frozen=True)
class Survey:
    """The result of an inspection.

    Attributes:
        config: the image's configuration, with keys such as User, Env, Cmd and Volumes.
        found: what look_inside.py printed when it ran in the image.
    """

    config: dict[str, Any]
    found: dict[str, Any]


def survey(engine: Engine, image: str) -> Survey:
    """Inspect an image and return the result."""
    (inspected,) = json.loads(engine("image", "inspect", image))
    seen = engine("run", "--rm", "--interactive", "--user", "0", image, "python", "-", stdin=_INSIDE.read_text())
    return Survey(inspected["Config"], json.loads(seen))
