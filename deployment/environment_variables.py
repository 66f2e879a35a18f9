"""Temporarily replaces this process's environment variables for AWS, Prefect and Sluice."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from blocks.settings import STACK_OUTPUTS

RECONCILE_CREDENTIALS = "SLUICE_RECONCILE_CREDENTIALS_URI"
"""The variable, set by the local cloud, with the URL from which runs of reconcile get ReconcileRole's credentials."""

AMBIENT_PREFIXES = ("AWS_", "PREFECT_", "SLUICE_", "BOTO_")


@contextmanager
def only(environment: dict[str, str]) -> Iterator[None]:
    """Replace this process's AWS, Prefect and Sluice variables with those in `environment` while the block runs."""
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
    """Return the environment variables that configure the pipeline, with values from a stack's outputs."""
    return {f"SLUICE_{name.upper()}": outputs[output] for name, output in STACK_OUTPUTS.items()}
