"""Settings of all tests."""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.hooks
import botocore.regions
import botocore.session
from hypothesis import HealthCheck, settings

from tests.warm import read_certificates_once

# Tests time nothing: a busy machine is slow now and then.
settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")

# Read each model of AWS once, not once for each session: that is half of the time that a client takes to be made.
botocore.session.create_loader = cache(botocore.session.create_loader)
read_certificates_once()

# The rules for a service's endpoints come from such a model, and reading them is half of the rest.
_regions: Any = botocore.regions  # its published types leave the name out
_make_provider = _regions.EndpointProvider
_providers: dict[int, Any] = {}  # by the rules' identity: models are kept for ever


def _provider_of(*, ruleset_data: dict[str, Any], **more: Any) -> Any:
    if id(ruleset_data) not in _providers:
        _providers[id(ruleset_data)] = _make_provider(ruleset_data=ruleset_data, **more)
    return _providers[id(ruleset_data)]


_regions.EndpointProvider = _provider_of

# Each client computes again by which name it knows an event.
_hooks: Any = botocore.hooks.EventAliaser
_name_of_event = cache(_hooks(None)._alias_event_name)
_hooks._alias_event_name = lambda _self, name: _name_of_event(name)
