"""Settings that apply to all tests."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

from tests.warm import read_aws_models_once, read_certificates_once

gc.disable()  # until the tests run, because the modules that they import contain no garbage


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Exclude all objects that exist now from garbage collection, and enable it."""
    gc.freeze()
    gc.enable()


# Hypothesis must not fail a test for being slow, because a busy machine sometimes is.
settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")

read_aws_models_once()
read_certificates_once()
