"""Records uploads in Prefect after they were processed, each as one flow run that is created in its final state.

This is done if many files are waiting, if Prefect was down, or if a task was killed before its flow run showed the
outcome. Failures are logged, not raised. An upload that could not be recorded stays in the batch note
(flows/pipeline/batch_notes.py), and is tried again later. Recording up to 100 uploads usually takes four requests, so
record many together. Each summary takes one more request (only files that were rejected, processed again, large or
given up have one), and the correction of an existing flow run takes up to two.
"""

import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from threading import Lock
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.observability.outcome_events import outcome_event
from flows.observability.prefect_connection import Connection, is_refusal, shorten_patience, why
from flows.observability.recorded_run import GIVEN_UP, RecordedRun, run_of
from flows.observability.run_identity import FLOW_NAME
from flows.pipeline.attempts import Attempt
from flows.pipeline.job import Parts
from flows.pipeline.receipt import Receipt

LOG = logging.getLogger("sluice")

RUNS_PER_CALL = 100
"""The maximum number of flow runs that Prefect creates in one call (prefect.server.api.deployments)."""

_LINES_PER_CALL = 1_000
_RESTS_SECONDS = (0.2, 0.5, 1.0, 2.0)
_TIMEOUT_SECONDS = 60.0  # a hundred runs take a second, and longer on a busy server
_LONGEST_REST_SECONDS = 5.0
_NO_BULK = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


class Recorder:
    """Creates flow runs for uploads that no live run showed, and corrects flow runs that show a different outcome. Only
    one thread records at a time; other threads wait."""

    def __init__(self, parts: Parts) -> None:
        self._settings = parts.settings
        self._deployment = parts.settings.prefect_names.deployment(FLOW_NAME)
        self._deployment_id: UUID | None = None
        self._has_bulk = True
        self._client: SyncPrefectClient | None = None
        self._connection = Connection()
        self._lock = Lock()

    def record(self, outcomes: Sequence[Receipt | Attempt]) -> frozenset[str]:
        """Show each upload that has a receipt, or that Sluice gave up on, as one flow run in its final state. Return
        the run IDs of the uploads that Prefect now shows or, if no Prefect API is configured, of all.

        Recording a receipt again creates no second flow run, but may repeat log lines and the summary. A flow run in a
        different state is set to the receipt's outcome, because a task that is killed after it wrote the receipt leaves
        its flow run Running or Crashed.
        """
        if not PREFECT_API_URL.value():
            return frozenset(each.run_id for each in outcomes)  # no Prefect is configured, so nothing is missing there
        recorded: set[str] = set()
        with self._lock, self._best_effort():
            runs = [run_of(each, self._settings) for each in outcomes]
            wanted = list({run.key: run for run in runs}.values())
            for start in range(0, len(wanted), RUNS_PER_CALL):
                if not self._connection.is_open():
                    break
                began = time.monotonic()
                recorded |= self._record_chunk(wanted[start : start + RUNS_PER_CALL])
                took = time.monotonic() - began
                self._connection.succeeded(took / RUNS_PER_CALL)
                if start + RUNS_PER_CALL < len(wanted):
                    time.sleep(min(took, _LONGEST_REST_SECONDS))  # leave the server half of the time for others
        return frozenset(recorded)

    @contextmanager
    def _best_effort(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 (the data never waits; what is missing is recorded later)
            self._connection.close(why(error))

    def _record_chunk(self, runs: list[RecordedRun]) -> set[str]:
        """Record up to RUNS_PER_CALL uploads. Return the run IDs of the uploads that Prefect now shows."""
        shown = self._find([run.flow_run_id for run in runs if run.flow_run_id])
        ids = {run.key: run.flow_run_id for run in runs if run.flow_run_id in shown}
        ids |= self._create([run for run in runs if run.key not in ids])
        shown |= self._find([flow_run_id for flow_run_id in ids.values() if flow_run_id not in shown])
        new: list[tuple[RecordedRun, str]] = []
        for run in runs:
            found = shown.get(ids.get(run.key) or "")
            if found is None:
                continue
            if not _made_by_recorder(found, run):
                fits = run.fits(found["state_type"], found["tags"])
                if fits and not run.was_given_up:
                    continue
                self._correct(run, found, fits=fits)
            new.append((run, found["id"]))
        self._tell(new)
        return {run.run_id for run in runs if ids.get(run.key) in shown}

    def _find(self, flow_run_ids: list[str]) -> dict[str, dict[str, Any]]:
        """Return those of the given flow runs that exist in Prefect, by ID."""
        if not flow_run_ids:
            return {}
        found = self._post("/flow_runs/filter", {"flow_runs": {"id": {"any_": flow_run_ids}}})
        return {run["id"]: run for run in found}

    def _create(self, runs: list[RecordedRun]) -> dict[str, str]:
        """Create flow runs, or find existing ones with the same idempotency keys. Return a mapping from idempotency key
        to flow run ID."""
        made: dict[str, str] = {}
        for rest_seconds in (*_RESTS_SECONDS, None):  # the server's SQLite fails if another request has locked it
            left = [run for run in runs if run.key not in made]
            if not left:
                break
            made |= self._create_at_once(left)
            if rest_seconds is not None and len(made) < len(runs):
                time.sleep(rest_seconds * random.uniform(0.5, 1.5))  # noqa: S311 (several tasks record at once)
        return made

    def _create_at_once(self, runs: list[RecordedRun]) -> dict[str, str]:
        wanted = [_with_transition(run.to_create(self._settings), run) for run in runs]
        path = f"/deployments/{self._id_of_deployment()}/create_flow_run"
        if self._has_bulk:
            try:
                results = self._post(f"{path}/bulk", wanted)["results"]
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in _NO_BULK:
                    raise
                self._has_bulk, self._deployment_id = False, None  # an older server, or the deployment was replaced
                return self._create_at_once(runs)
        else:
            results = [{"flow_run_id": self._create_one(path, one)} for one in wanted]
        refused = [result["error"] for result in results if result.get("error")]
        if refused:
            fields = {"runs": len(refused), "first": str(refused[0]).splitlines()[0][:200]}
            LOG.warning("Prefect rejected some of the recorded uploads", extra={"fields": fields})
        pairs = zip(runs, results, strict=True)
        return {run.key: result["flow_run_id"] for run, result in pairs if result["flow_run_id"]}

    def _create_one(self, path: str, wanted: dict[str, Any]) -> str | None:
        try:
            return str(self._post(path, wanted)["id"])
        except httpx.HTTPStatusError as error:
            if not is_refusal(error):
                raise
            LOG.warning("Prefect rejected a recorded upload", extra={"fields": {"why": why(error)}})
            return None

    def _id_of_deployment(self) -> UUID:
        if self._deployment_id is None:
            try:
                self._deployment_id = self._open_client().read_deployment_by_name(self._deployment).id
            except ObjectNotFound:
                self._connection.close(f"there is no deployment {self._deployment}; run `prefect deploy --all`")
                raise
        return self._deployment_id

    def _correct(self, run: RecordedRun, found: dict[str, Any], *, fits: bool) -> None:
        """Set an existing flow run to the outcome of its upload, because the run's task ended before that, or an
        earlier try failed."""
        tags = sorted({*found["tags"], *run.tags} - ({GIVEN_UP} - run.tags))
        self._request("PATCH", f"/flow_runs/{found['id']}", {"tags": tags})
        if not fits:
            self._post(f"/flow_runs/{found['id']}/set_state", {"state": run.state, "force": True})

    def _tell(self, new: list[tuple[RecordedRun, str]]) -> None:
        """Send the log lines, summaries and events of runs that a recorder created or has just corrected."""
        lines = [
            {
                "name": "prefect.flow_runs",
                "level": line.level,
                "message": line.message,
                "timestamp": line.at.isoformat(),
                "flow_run_id": flow_run_id,
            }
            for run, flow_run_id in new
            for line in run.log
        ]
        for start in range(0, len(lines), _LINES_PER_CALL):
            self._post("/logs/", lines[start : start + _LINES_PER_CALL])
        for run, flow_run_id in new:
            if artifact := run.artifact():
                self._post("/artifacts/", {**artifact, "flow_run_id": flow_run_id})
        events = [
            outcome_event(run.notice, self._settings.stack, flow_run_id, at=run.event_key).model_dump(mode="json")
            for run, flow_run_id in new
        ]
        if events:
            self._post("/events", events)

    def _post(self, path: str, body: Any) -> Any:
        return self._request("POST", path, body)

    def _request(self, method: Any, path: Any, body: Any) -> Any:
        content = json.dumps(body).replace("\\u0000", "\\ufffd")  # a key may contain NUL, which PostgreSQL rejects
        headers = {"Content-Type": "application/json"}
        response = self._open_client().request(method, path, content=content, headers=headers).raise_for_status()
        return response.json() if response.content else None

    def _open_client(self) -> SyncPrefectClient:
        """Return the Prefect client. All calls share it, because each new client opens a connection and requests a CSRF
        token."""
        if self._client is None:
            self._client = get_client(sync_client=True, httpx_settings={"timeout": _TIMEOUT_SECONDS})
            self._client._client.event_hooks["response"].append(shorten_patience)
        return self._client


def _transition_of(run: RecordedRun) -> str:
    return str(uuid5(NAMESPACE_URL, f"sluice:recorded/{run.key}/{run.event_key}"))


def _with_transition(wanted: dict[str, Any], run: RecordedRun) -> dict[str, Any]:
    """Return `wanted` with a transition ID that marks the run's state as the recorder's. Prefect does not report which
    of the runs in a call existed before."""
    return {**wanted, "state": {**wanted["state"], "state_details": {"transition_id": _transition_of(run)}}}


def _made_by_recorder(found: dict[str, Any], run: RecordedRun) -> bool:
    return bool((found["state"].get("state_details") or {}).get("transition_id") == _transition_of(run))
