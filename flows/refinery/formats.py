"""From the bytes of a file to partitions of rows."""

from __future__ import annotations

from flows.refinery.partition import Limits, Misfit, Partition, SourceFormat

__all__ = ["Limits", "Misfit", "Partition", "SourceFormat"]
