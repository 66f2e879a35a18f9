"""Imports the modules that tasks and commands need, once, in the warm process from which they are forked."""

from __future__ import annotations

import importlib
import os
import ssl
import sys
import tempfile
from collections.abc import Mapping
from functools import cache

import certifi

# Includes the modules that Prefect imports only when a flow runs.
_MODULES = """
    flows.drain_queue flows.process_upload anyio._backends._asyncio prefect.flow_engine prefect.logging.handlers
    prefect.task_engine prefect.utilities.visualization pyarrow.pandas_compat
    prefect.cli prefect.cli.worker prefect.cli.deployment prefect.cli.flow_run prefect.workers.process
    prefect.runner._workspace_supervisor prefect_aws prefect_aws.workers
    deployment.prefect_setup.registration deployment.cli
    uvicorn prefect.server.api.server sqlalchemy.dialects.sqlite.aiosqlite
"""


def import_all() -> None:
    """Import everything that a forked process may need, except a task's main module, which the process runs."""
    from flows.refinery.validate.gx import gx

    gx()
    for name in _MODULES.split():
        importlib.import_module(name)
    del sys.modules["flows.drain_queue"]
    read_certificates_once()
    ssl.create_default_context(cafile=certifi.where())


def read_certificates_once() -> None:
    """Cache the TLS context. Otherwise each Prefect client spends 40 ms reading certificates that it does not use."""
    ssl.create_default_context = cache(ssl.create_default_context)  # type: ignore[assignment]


def take_environment(environment: Mapping[str, str]) -> None:
    """Replace a forked process's environment variables, and reset what was derived from the previous ones."""
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    refresh_global_settings_context()
