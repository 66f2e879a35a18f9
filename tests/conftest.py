"""Settings of all tests."""

from __future__ import annotations

from functools import cache

import botocore.session
from hypothesis import HealthCheck, settings

from tests.warm import read_certificates_once

# Tests time nothing: a busy machine is slow now and then.
settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")

# Read each model of AWS once, not once for each session: that is half of the time that a client takes to be made.
botocore.session.create_loader = cache(botocore.session.create_loader)
read_certificates_once()
