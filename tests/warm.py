"""Does once, in the warm process from which tasks and commands are forked, what each of them would do at its start."""

from __future__ import annotations

import importlib
import os
import ssl
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from functools import cache, partial
from typing import Any

import boto3
import botocore.hooks
import botocore.regions
import botocore.session
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
_SERVICES = ("cloudformation", "ecs", "logs", "s3", "secretsmanager", "sqs", "stepfunctions", "sts")


def warm_up() -> None:
    """Import everything that a forked process may need, except a task's main module, which the process runs. Fill the
    caches of AWS models and of the templates of Data Docs pages."""
    from flows.refinery.validate.gx import gx

    gx()
    for name in _MODULES.split():
        importlib.import_module(name)
    del sys.modules["flows.drain_queue"]
    _look_for_background_work_less_often()
    read_certificates_once()
    ssl.create_default_context(cafile=certifi.where())
    read_aws_models_once()
    session: Any = boto3.Session("none", "none", region_name="us-east-1")  # Any, because the names are variable
    for service in _SERVICES:
        session.client(service)
    _render_a_page()


def _look_for_background_work_less_often() -> None:
    """Make Prefect's server look for background work every second instead of four times a second, because each look
    takes CPU time."""
    from prefect.server.api import background_workers

    workers: Any = background_workers  # Any, because its type does not export the class
    pause = timedelta(seconds=1)
    workers.Worker = partial(workers.Worker, minimum_check_interval=pause, scheduling_resolution=pause)


def _render_a_page() -> None:
    """Compile the templates of Data Docs pages. This must not refine a file: GX keeps what the code registers for that,
    but a forked process may import other code."""
    from flows.pipeline.data_docs_page import page_of
    from flows.refinery.checks import Check
    from tests.unit.flows.pipeline.receipts import receipt_of, upload

    expected = {"min_value": 0}
    common: dict[str, Any] = {"rule": "rule", "severity": "critical", "expected": expected}
    row_rule = Check(
        **common,
        expectation="expect_column_values_to_be_between",
        column="a",
        kind="row",
        success=False,
        rows_failing=1,
    )
    table_rule = Check(
        **common,
        expectation="expect_table_row_count_to_be_between",
        column=None,
        kind="table",
        success=True,
        observed=9,
    )
    page_of(receipt_of(upload(), checks=(row_rule, table_rule)))


def read_certificates_once() -> None:
    """Cache the TLS context. Otherwise each Prefect client spends 40 ms reading certificates that it does not use."""
    ssl.create_default_context = cache(ssl.create_default_context)  # type: ignore[assignment]


def read_aws_models_once() -> None:
    """Cache what botocore reads and computes for each client, which is three quarters of the time to create one."""
    botocore.session.create_loader = cache(botocore.session.create_loader)
    # The endpoint rules of a service come from such a model.
    regions: Any = botocore.regions  # Any, because the type stubs lack EndpointProvider
    make_provider = regions.EndpointProvider
    providers: dict[int, Any] = {}  # keyed by the id() of the rules, which is safe because the models are never freed

    def provider_of(*, ruleset_data: dict[str, Any], **more: Any) -> Any:
        if id(ruleset_data) not in providers:
            providers[id(ruleset_data)] = make_provider(ruleset_data=ruleset_data, **more)
        return providers[id(ruleset_data)]

    regions.EndpointProvider = provider_of
    # Each client would otherwise compute the aliases of event names again.
    hooks: Any = botocore.hooks.EventAliaser
    name_of_event = cache(hooks(None)._alias_event_name)
    hooks._alias_event_name = lambda _self, name: name_of_event(name)


def take_environment(environment: Mapping[str, str]) -> None:
    """Replace a forked process's environment variables, and reset what was derived from the previous ones."""
    from prefect.context import refresh_global_settings_context

    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    refresh_global_settings_context()
