"""Settings that apply to all tests."""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.hooks
import botocore.regions
import botocore.session
from hypothesis import HealthCheck, settings

from tests.warm import read_certificates_once

# Hypothesis must not fail a test for being slow, because a busy machine sometimes is.
settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")

# Read each botocore service model once, not once per session. Reading it is half the time it takes to create a client.
botocore.session.create_loader = cache(botocore.session.create_loader)
read_certificates_once()

# The endpoint rules of a service come from such a model, and parsing them is half of the remaining time.
_regions: Any = botocore.regions  # Any, because the type stubs lack EndpointProvider
_make_provider = _regions.EndpointProvider
_providers: dict[int, Any] = {}  # keyed by the id() of the rules, which is safe because the models are never freed


def _provider_of(*, ruleset_data: dict[str, Any], **more: Any) -> Any:
    if id(ruleset_data) not in _providers:
        _providers[id(ruleset_data)] = _make_provider(ruleset_data=ruleset_data, **more)
    return _providers[id(ruleset_data)]


_regions.EndpointProvider = _provider_of

# Each client would otherwise compute the aliases of event names again.
_hooks: Any = botocore.hooks.EventAliaser
_name_of_event = cache(_hooks(None)._alias_event_name)
_hooks._alias_event_name = lambda _self, name: _name_of_event(name)
