"""Settings of all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Tests time nothing: a busy machine is slow now and then.
settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")
