"""What workers import anyway: imported once, by the process that they are forked from."""

from __future__ import annotations

import flows.json_log
import flows.observed_run  # noqa: F401
from flows.refinery.judging.gx import gx

gx()
