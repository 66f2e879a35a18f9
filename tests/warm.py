"""The imports of a task, made once by the process that tasks are forked from."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Mapping

# With what Prefect imports only when a flow runs.
_MODULES = """
    flows.drain_queue flows.process_upload anyio._backends._asyncio prefect.flow_engine prefect.logging.handlers
    prefect.task_engine prefect.utilities.visualization pyarrow.pandas_compat
"""


def import_all() -> None:
    """Import what a task imports, but not its main module, which a forked process runs."""
    from flows.refinery.validate.gx import gx

    gx()
    for name in _MODULES.split():
        importlib.import_module(name)
    del sys.modules["flows.drain_queue"]


def take_environment(environment: Mapping[str, str]) -> None:
    """Give a forked process its own variables, and make what was derived from others new."""
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    refresh_global_settings_context()
