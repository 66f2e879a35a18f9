"""This process's own environment variables for AWS, Prefect and Sluice, replaced while a command runs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from blocks.settings import STACK_OUTPUTS

RECONCILE_CREDENTIALS = "SLUICE_RECONCILE_CREDENTIALS_URI"
"""Set by the local cloud: where its process worker's runs of reconcile find the credentials of ReconcileRole."""

AMBIENT_PREFIXES = ("AWS_", "PREFECT_", "SLUICE_", "BOTO_")


@contextmanager
def only(environment: dict[str, str]) -> Iterator[None]:
    """Use `environment` for this process's AWS, Prefect and Sluice variables; restore the user's afterwards."""
    before = {name: value for name, value in os.environ.items() if name.startswith(AMBIENT_PREFIXES)}
    ours = {name: value for name, value in environment.items() if name.startswith(AMBIENT_PREFIXES)}
    try:
        _replace(ours)
        yield
    finally:
        _replace(before)


def _replace(variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(AMBIENT_PREFIXES)]:
        del os.environ[name]
    os.environ.update(variables)


def pipeline_settings(outputs: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that configure a process with the stack's buckets and queue."""
    return {f"SLUICE_{name.upper()}": outputs[output] for name, output in STACK_OUTPUTS.items()}
