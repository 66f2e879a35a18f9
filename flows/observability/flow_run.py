"""Process an upload so that Prefect shows it; when Prefect is down, process it without Prefect."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.context import SyncClientContext
from prefect.exceptions import Abort, ObjectAlreadyExists, ObjectNotFound
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed, Pending

from flows.observability.crashes import Crash, infrastructure_of, lines_in_prefect
from flows.observability.observed_upload import display_name, final_state, run_observed
from flows.pipeline.commit import read_receipt
from flows.pipeline.errors import StageBroke
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.protocol import is_done
from flows.pipeline.receipt import Receipt
from flows.pipeline.run import RunUpload, run_upload
from flows.refinery.errors import SluiceError, TransientError
from lambda_trigger.message import folder_of

LOG = logging.getLogger("sluice")
FLOW_NAME = "process-upload"
PATIENCE_SECONDS = 5.0
"""How long to wait before the next request to a busy Prefect server."""

SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 300.0
"""How long a task does without a Prefect server that failed, at first and at most."""

_PROBE_SECONDS = 2
_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)
_TAKEN_OVER = "The task that ran this upload ended without reporting why; another one took over."


class RunTaken(TransientError):
    """Another worker is running this upload's flow run; the message is delivered again later."""


class FlowRunner:
    """Creates, claims and runs the flow run of an upload.

    Prefect does not keep two processes from running one flow run; the claim keeps the display in order, and the
    commit protocol keeps the data in order whatever Prefect shows.
    """

    def __init__(self, parts: Parts, run: RunUpload = run_upload) -> None:
        """Args:
        run: processes an upload, given how to call a stage.
        """
        self._parts = parts
        self._run_upload = run
        self._deployment = parts.settings.prefect_names.deployment(FLOW_NAME)
        self._deployment_id: UUID | None = None
        self._connection = Connection()
        self._shown = False  # whether Prefect shows the upload at hand

    def is_available(self) -> bool:
        """Return whether Prefect answers quickly at present; after a failure, ask it again once the pause is over."""
        return self._connection.is_open()

    def process(self, job: UploadJob) -> Receipt:
        """Process one upload and return its receipt.

        Raises:
            UploadCancelled: a person cancelled the flow run; nothing was committed.
            TransientError: nothing was committed; the same upload can be tried again.
            TerminalError: the upload would fail again in the same way.
        """
        self._shown = self._connection.is_open()
        with self._one_client():
            flow_run = self._flow_run(job) if self._shown else None
            if flow_run is None or self._is_done(flow_run, job) or not self._claim(flow_run, job):
                return self._run_upload(self._parts, job)
            return self._run(flow_run, job)

    def _is_done(self, flow_run: FlowRun, job: UploadJob) -> bool:
        """Return whether the flow run has ended with a receipt: at most the index still needs an update."""
        if flow_run.state is None or not flow_run.state.is_final():
            return False
        return is_done(read_receipt(self._parts.store, job.upload.run_id), job.upload.attempt)

    @contextmanager
    def _one_client(self) -> Iterator[None]:
        """Share one client with everything in the block: each new one opens a connection and requests a CSRF token."""
        with ExitStack() as stack:
            if self._shown:
                try:
                    context = SyncClientContext()
                    context.client._client.event_hooks["response"].append(_shorten_patience)
                    stack.enter_context(context)
                except Exception as error:  # noqa: BLE001 (observability never holds data back)
                    self._go_without(error)
            yield

    @contextmanager
    def _prefect(self) -> Iterator[SyncPrefectClient]:
        """Provide a client to the block; if Prefect fails in the block, process this upload without Prefect."""
        try:
            with get_client(sync_client=True) as client:
                yield client
        except Exception as error:  # noqa: BLE001 (observability never holds data back)
            self._go_without(error)

    def _flow_run(self, job: UploadJob) -> FlowRun | None:
        """Return the upload's flow run, created now or by an earlier delivery; None when Prefect is down."""
        upload, parts = job.upload, self._parts
        with self._prefect() as client:
            try:
                self._deployment_id = self._deployment_id or client.read_deployment_by_name(self._deployment).id
                return client.create_flow_run_from_deployment(
                    self._deployment_id,
                    name=display_name(parts, job),
                    parameters={"bucket": upload.bucket, "key": upload.key, "version_id": upload.version_id or ""},
                    tags=[folder_of(upload.key, parts.settings.incoming_prefix) or "default", "upload"],
                    idempotency_key=f"{upload.run_id}-{upload.attempt}" if upload.attempt else upload.run_id,
                    state=Pending(name="Received"),  # workers start only Scheduled runs, so none starts this one
                )
            except ObjectNotFound:
                self._close(f"there is no deployment {self._deployment}; run `prefect deploy --all`")
        return None

    def _claim(self, flow_run: FlowRun, job: UploadJob) -> bool:
        """Claim the flow run; return False when Prefect is down. Raise RunTaken when another worker has it."""
        receive_count = job.chain.receive_count or 1
        claim: State[Any] = Pending(name=f"Claimed-{receive_count}")
        claimed: State[Any] | None = None
        with self._prefect() as client:
            claimed = _set_state(client, flow_run, claim)
            if claimed is None and receive_count > 1:
                # The message was delivered again, so the worker that had the run gave up or died, and only the display
                # still shows the run as Running. A killed process cannot report that.
                crash = Crash(lines=tuple(lines_in_prefect(client, flow_run.id)))
                gone: State[Any] = Crashed(message=crash.message(_TAKEN_OVER))
                client.set_flow_run_state(flow_run.id, gone, force=True)
                claimed = _set_state(client, flow_run, claim)
            if claimed is not None and job.chain.task_arn:
                pid = infrastructure_of(job.chain.task_arn)
                client.update_flow_run(flow_run.id, infrastructure_pid=pid)
        if not self._shown:
            return False
        if claimed is None:
            raise RunTaken(f"flow run {flow_run.name} is being run by another worker")
        flow_run.state = claimed
        return True

    def _run(self, flow_run: FlowRun, job: UploadJob) -> Receipt:
        """Run the flow in this process. The receipt decides the outcome, not the state in Prefect."""
        receipts: list[Receipt] = []

        @flow(name=FLOW_NAME, validate_parameters=False, persist_result=False)
        def process_upload(bucket: str, key: str, version_id: str) -> State[Any]:  # noqa: ARG001 (the job has more)
            receipts.append(run_observed(self._parts, job, self._run_upload))
            return final_state(receipts[-1])

        state: State[Any] | None = None
        try:
            state = run_flow(process_upload, flow_run=flow_run, return_type="state")  # type: ignore[assignment]
        except Abort:
            raise RunTaken(f"flow run {flow_run.name}: Prefect refused to run it here") from None
        except SluiceError:
            raise
        except Exception as error:  # noqa: BLE001 (the API went away in the middle)
            self._go_without(error)
        if receipts:
            if state is not None and not state.is_final():
                # Prefect declined the last state because the run was cancelled while it was at work: what was done is
                # done, and a run that stays Cancelling would hide it.
                with self._prefect() as client:
                    client.set_flow_run_state(flow_run.id, final_state(receipts[-1]), force=True)
            return receipts[-1]
        failure = state.result(raise_on_failure=False) if state is not None and state.is_final() else None
        if isinstance(failure, SluiceError):
            raise failure
        if isinstance(failure, Exception):
            raise StageBroke(f"the flow run ended as {state.name if state else 'nothing'}: {type(failure).__name__}")
        return self._run_upload(self._parts, job)

    def _go_without(self, error: Exception) -> None:
        """Send no more requests to Prefect for this upload and, unless it refused only this one, for the next ones."""
        if not _is_refusal(error):
            self._close(_why(error))
            return
        self._shown = False
        LOG.warning("Prefect refused this upload; continuing unobserved", extra={"fields": {"why": _why(error)}})

    def _close(self, why: str) -> None:
        self._shown = False
        self._connection.close()
        LOG.warning("Prefect is down; continuing unobserved", extra={"fields": {"why": why}})


class Connection:
    """Remembers whether Prefect is down: each attempt to reach it would delay the data.

    After a pause one short request asks whether it is back; the pause grows with each failure.
    """

    def __init__(self) -> None:
        self._closed_until = 0.0 if PREFECT_API_URL.value() else float("inf")
        self._pause_seconds = SHORTEST_PAUSE_SECONDS

    def is_open(self) -> bool:
        """Return whether to use Prefect for the next upload."""
        if not self._closed_until:
            return True
        if time.monotonic() < self._closed_until:
            return False
        if not _answers(f"{PREFECT_API_URL.value()}/health"):
            self.close()
            return False
        self._closed_until = 0.0
        LOG.info("Prefect responds again")
        return True

    def close(self) -> None:
        """Use Prefect no more until the pause is over."""
        self._closed_until = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=_PROBE_SECONDS).status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    except httpx.HTTPError:
        return False


def _is_refusal(error: Exception) -> bool:
    """Return whether Prefect is well and refused one request, such as one about a run that was deleted meanwhile."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _REFUSALS
    return isinstance(error, (ObjectNotFound, ObjectAlreadyExists))


def _shorten_patience(response: httpx.Response) -> None:
    """Limit how long Prefect's client waits for a busy server or proxy: by default it obeys any Retry-After, and
    during maintenance it retries forever."""
    response.headers.pop("Prefect-Maintenance", None)
    if "Retry-After" in response.headers:
        response.headers["Retry-After"] = str(PATIENCE_SECONDS)


def _why(error: Exception) -> str:
    """Return what is wrong with Prefect, without secrets."""
    if not isinstance(error, httpx.HTTPStatusError):
        return type(error).__name__
    status = error.response.status_code
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"its API rejects this client ({status}): PREFECT_API_AUTH_STRING or PREFECT_API_KEY is missing or wrong"
    return f"its API responds with status {status}"


def _set_state(client: SyncPrefectClient, flow_run: FlowRun, state: State[Any]) -> State[Any] | None:
    """Propose a state; return the state that the server stored, None when it declined."""
    answer = client.set_flow_run_state(flow_run.id, state)
    return (answer.state or state) if answer.status is SetStateStatus.ACCEPT else None
