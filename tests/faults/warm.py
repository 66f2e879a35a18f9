"""Imports that all workers need, made once by the process that they are forked from."""

from __future__ import annotations

from tests.warm import import_all

import_all()
