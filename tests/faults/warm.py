"""Imports that all workers need, made once by the process that they are forked from."""

from __future__ import annotations

from flows.refinery.validate.gx import gx

gx()
