"""Shows the progress of a task that drains the queue, and the outcomes per dataset, in a run of the drain-queue flow.

A background thread sends everything, so that no upload waits for Prefect. These flow runs have no deployment, because
Step Functions launches the tasks, and nobody starts them in Prefect.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client

from flows.observability import heartbeats
from flows.observability.heartbeats import Heartbeat
from flows.observability.outside_of_run import outside_of_run
from flows.observability.prefect_connection import shorten_patience, why
from flows.observability.run_identity import DRAIN_FLOW_NAME, TASK_LABEL, artifact_name, stack_tag
from flows.pipeline.attempts import Attempt
from flows.pipeline.job import Parts, TaskIdentity
from flows.pipeline.receipt import Receipt, Status

LOG = logging.getLogger("sluice")
UPDATE_SECONDS = 10.0
_ENDS_SECONDS = 3.0


@dataclass
class DatasetCounts:
    """The numbers of a dataset's published and rejected uploads, of failed attempts, and of rows."""

    published: int = 0
    rejected: int = 0
    failed: int = 0
    rows_published: int = 0
    rows_quarantined: int = 0


@dataclass
class DrainCounts:
    """The counts of one task that drains the queue, by dataset."""

    datasets: dict[str, DatasetCounts] = field(default_factory=lambda: defaultdict(DatasetCounts))

    def add(self, receipts: Sequence[Receipt], failed: Sequence[Attempt]) -> None:
        for receipt in receipts:
            counts = self.datasets[receipt.contract.dataset]
            counts.rows_published += receipt.rows.published
            counts.rows_quarantined += receipt.rows.quarantined_total
            if receipt.status is Status.PUBLISHED:
                counts.published += 1
            else:
                counts.rejected += 1
        for attempt in failed:
            self.datasets[attempt.dataset].failed += 1

    def total(self, name: str) -> int:
        """Return one of the counts, such as `published`, summed over all datasets."""
        return sum(int(getattr(counts, name)) for counts in self.datasets.values())

    @property
    def done(self) -> int:
        """Return how many uploads were published or rejected, plus how many attempts failed."""
        return sum(self.total(name) for name in ("published", "rejected", "failed"))

    def percent(self, waiting: int) -> float:
        """Return the percentage of uploads that are done, given that `waiting` uploads are left."""
        return round(100 * self.done / max(1, self.done + waiting), 1)

    @property
    def summary(self) -> str:
        return ", ".join(f"{self.total(name):,} {name}" for name in ("published", "rejected", "failed"))

    def table(self) -> list[dict[str, Any]]:
        return [
            {
                "dataset": dataset,
                "published": counts.published,
                "rejected": counts.rejected,
                "failed tries": counts.failed,
                "rows published": f"{counts.rows_published:,}",
                "rows quarantined": f"{counts.rows_quarantined:,}",
            }
            for dataset, counts in sorted(self.datasets.items())
        ]


class DrainRun:
    """The flow run that shows how one task drains the queue. It is created when the second upload is done, because a
    single upload has its own flow run.

    No method raises an exception, and only `end` waits for Prefect, for a few seconds.

    Args:
        waiting: returns how many messages were waiting in the queue at the last count.

    Attributes:
        flow_run_id: the ID of the flow run; None until it is created.
    """

    def __init__(
        self,
        parts: Parts,
        task: TaskIdentity,
        *,
        waiting: Callable[[], int],
        update_seconds: float = UPDATE_SECONDS,
    ) -> None:
        self.flow_run_id: str | None = None
        self._stack, self._task, self._waiting = parts.settings.stack, task, waiting
        self._update_seconds = update_seconds
        self._counts, self._lock = DrainCounts(), Lock()
        self._over = Event()
        self._artifacts: dict[str, str] = {}
        self._began = time.monotonic()
        self._thread: Thread | None = None

    def count(self, receipts: Sequence[Receipt], failed: Sequence[Attempt]) -> None:
        """Count outcomes and failed attempts. From the second upload on, show the drain in Prefect."""
        with self._lock:
            self._counts.add(receipts, failed)
            if self._thread is None and self._counts.done > 1:
                self._thread = Thread(target=outside_of_run(self._show), name="drain-run", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Complete the flow run, and wait at most a few seconds for Prefect."""
        if self._thread is not None:
            self._over.set()
            self._thread.join(_ENDS_SECONDS)

    def _show(self) -> None:
        try:
            with get_client(sync_client=True) as client:
                client._client.event_hooks["response"].append(shorten_patience)
                self._create(client)
                beat = Heartbeat(str(self.flow_run_id), DRAIN_FLOW_NAME, self._stack)
                last_beat = time.monotonic()
                while not self._over.wait(self._update_seconds):
                    self._update(client, self._waiting())
                    if time.monotonic() - last_beat >= heartbeats.HEARTBEAT_SECONDS:
                        beat.send()
                        last_beat = time.monotonic()
                self._end(client)
        except Exception as error:  # noqa: BLE001 (observability never holds data back)
            LOG.warning("this drain is not shown in Prefect", extra={"fields": {"why": why(error)}})

    def _create(self, client: SyncPrefectClient) -> None:
        flow_id = self._request(client, "POST", "/flows/", {"name": DRAIN_FLOW_NAME})["id"]
        task = (self._task.task_arn or "").rpartition("/")[2]
        run = {
            "flow_id": flow_id,
            "name": " ".join(["drain", self._stack, *([task[:8]] if task else [])]),
            "tags": [stack_tag(self._stack), "drain"],
            "labels": {TASK_LABEL: self._task.task_arn, "sluice.execution": self._task.execution_arn},
            "state": {"type": "RUNNING"},
        }
        run["labels"] = {name: value for name, value in run["labels"].items() if value}
        self.flow_run_id = str(self._request(client, "POST", "/flow_runs/", run)["id"])

    def _update(self, client: SyncPrefectClient, waiting: int) -> None:
        with self._lock:
            percent, table, words = self._counts.percent(waiting), self._counts.table(), self._counts.summary
        self._artifact(client, "progress", "progress", percent, words)
        self._artifact(client, "drain", "table", json.dumps(table), words)

    def _end(self, client: SyncPrefectClient) -> None:
        self._update(client, 0)
        message = f"{self._counts.summary} in {time.monotonic() - self._began:,.0f} s"
        state = {"state": {"type": "COMPLETED", "message": message}, "force": True}
        self._request(client, "POST", f"/flow_runs/{self.flow_run_id}/set_state", state)

    def _artifact(self, client: SyncPrefectClient, key: str, kind: str, data: Any, description: str) -> None:
        content = {"data": data, "description": description}
        if key in self._artifacts:
            self._request(client, "PATCH", f"/artifacts/{self._artifacts[key]}", content)
            return
        new = {"key": f"{key}-{artifact_name(self._stack)}", "type": kind, "flow_run_id": self.flow_run_id, **content}
        self._artifacts[key] = self._request(client, "POST", "/artifacts/", new)["id"]

    def _request(self, client: SyncPrefectClient, method: Any, path: Any, body: Any) -> Any:
        response = client.request(method, path, json=body).raise_for_status()
        return response.json() if response.content else None
