"""Makes the imports that all workers need, in the process from which they are forked."""

from __future__ import annotations

from tests.warm import import_all

import_all()
