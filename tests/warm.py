"""The imports of a task, made once by the process that tasks are forked from."""

from __future__ import annotations

import importlib
import os
import ssl
import sys
import tempfile
from collections.abc import Mapping
from functools import cache

import certifi

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
    read_certificates_once()
    ssl.create_default_context(cafile=certifi.where())


def read_certificates_once() -> None:
    """Read the certificates once, not for each client of Prefect's API, which takes 40 ms and speaks no TLS here."""
    ssl.create_default_context = cache(ssl.create_default_context)  # type: ignore[assignment]


def take_environment(environment: Mapping[str, str]) -> None:
    """Give a forked process its own variables, and make what was derived from others new."""
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    refresh_global_settings_context()
