"""Processes an upload as a flow run that Prefect shows live or, if Prefect is down, without a flow run."""

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import Flow, FlowRun, State, StateDetails
from prefect.client.schemas.responses import DeploymentResponse, SetStateStatus
from prefect.context import SyncClientContext
from prefect.events.related import RESOURCE_CACHE
from prefect.exceptions import Abort, ObjectNotFound
from prefect.flow_engine import run_flow
from prefect.states import Cancelled, Crashed, Pending

from flows.observability.cancellation import Cancellation
from flows.observability.crashes import Crash, lines_in_prefect
from flows.observability.observed_upload import final_state, run_observed
from flows.observability.prefect_connection import Connection, is_refusal, shorten_patience, why
from flows.observability.recorder import Recorder
from flows.observability.run_identity import (
    FLOW_NAME,
    TASK_LABEL,
    idempotency_key,
    run_name,
    run_parameters,
    upload_tags,
)
from flows.pipeline.commit import read_receipt
from flows.pipeline.errors import StageBroke, UploadCancelled
from flows.pipeline.job import Parts, UploadJob
from flows.pipeline.protocol import is_done
from flows.pipeline.receipt import Receipt
from flows.pipeline.run import RunUpload, run_upload
from flows.refinery.errors import SluiceError, TransientError

LOG = logging.getLogger("sluice")
_NO_RESULTS = Path(tempfile.gettempdir())
_TAKEN_OVER = "The task that processed this upload ended without reporting why; another one took over."


class RunTaken(TransientError):
    """Another worker is running this upload's flow run. The message returns to the queue, and is delivered again."""


class FlowRunner:
    """Creates, claims and runs the flow run of an upload.

    Prefect does not prevent two processes from running the same flow run. Claiming the run keeps what Prefect shows
    consistent. The commit protocol keeps the data consistent, regardless of what Prefect shows.

    Args:
        run: a function that processes an upload, with the parameters of `run_upload`.
    """

    def __init__(self, parts: Parts, run: RunUpload = run_upload) -> None:
        self._parts = parts
        self._run_upload = run
        self._deployment = parts.settings.prefect_names.deployment(FLOW_NAME)
        self._deployment_id: UUID | None = None
        self._connection = Connection()
        self._shown = False  # whether Prefect shows the current upload

    def is_available(self) -> bool:
        """Return whether Prefect can currently be used. After a failure, check again once a pause has passed."""
        return self._connection.is_open()

    def process(self, job: UploadJob) -> Receipt:
        """Process one upload and return its receipt. If Prefect fails, continue without a flow run.

        Raises:
            UploadCancelled: a person cancelled the flow run; nothing was committed.
            TransientError: the upload is not finished; it can be tried again, even if its receipt was committed.
            TerminalError: the upload would fail again in the same way.
        """
        self._shown = self._connection.is_open()
        received: State[Any] = Pending(state_details=StateDetails(transition_id=uuid4()))
        with self._one_client():
            flow_run = self._flow_run(job, received) if self._shown else None
            if flow_run is None:
                return self._run_upload(self._parts, job)
            if _is_new(flow_run, received):
                return self._run(flow_run, job)
            if is_done(read_receipt(self._parts.store, job.upload.run_id), job.upload.attempt):
                return self._settle(job)
            return self._run(flow_run, job) if self._claim(flow_run, job) else self._run_upload(self._parts, job)

    def _settle(self, job: UploadJob) -> Receipt:
        """Update the index and the flow run of an upload that already has a receipt, because the task that wrote the
        receipt may have been killed before it could do so."""
        receipt = self._run_upload(self._parts, job)
        Recorder(self._parts).record([receipt])
        return receipt

    @contextmanager
    def _one_client(self) -> Iterator[None]:
        """Share one Prefect client among all calls in the block, because each new client opens a connection and
        requests a CSRF token."""
        with ExitStack() as stack:
            if self._shown:
                try:
                    context = SyncClientContext()
                    context.client._client.event_hooks["response"].append(shorten_patience)
                    stack.enter_context(context)
                except Exception as error:  # noqa: BLE001 (observability never holds data back)
                    self._go_without(error)
            yield

    @contextmanager
    def _prefect(self) -> Iterator[SyncPrefectClient]:
        """Provide a Prefect client to the block. If Prefect fails in the block, process this upload without Prefect."""
        try:
            with get_client(sync_client=True) as client:
                yield client
        except Exception as error:  # noqa: BLE001 (observability never holds data back)
            self._go_without(error)

    def _flow_run(self, job: UploadJob, state: State[Any]) -> FlowRun | None:
        """Return the upload's flow run, which is created now unless an earlier delivery created it. Return None if
        Prefect fails or does not have the deployment."""
        upload, settings = job.upload, self._parts.settings
        with self._prefect() as client:
            try:
                if self._deployment_id is None:
                    self._deployment_id = _known_to_events(client.read_deployment_by_name(self._deployment))
                began = time.monotonic()
                flow_run = client.create_flow_run_from_deployment(
                    self._deployment_id,
                    name=run_name(upload.key, upload.run_id, settings.incoming_prefix),
                    parameters=run_parameters(upload.bucket, upload.key, upload.version_id),
                    tags=sorted(upload_tags(upload.key, settings.incoming_prefix)),
                    idempotency_key=idempotency_key(upload.run_id, upload.attempt),
                    labels={TASK_LABEL: job.chain.task_arn} if job.chain.task_arn else None,
                    state=state,  # workers start only Scheduled runs, so none starts this one
                )
                self._connection.succeeded(time.monotonic() - began)
                return flow_run
            except ObjectNotFound:
                self._shown = False
                self._connection.close(f"there is no deployment {self._deployment}; run `prefect deploy --all`")
        return None

    def _claim(self, flow_run: FlowRun, job: UploadJob) -> bool:
        """Claim the flow run for this process. Return False if Prefect fails, and raise RunTaken if another worker is
        running the flow run."""
        receive_count = job.chain.receive_count or 1
        claim: State[Any] = Pending()
        claimed: State[Any] | None = None
        with self._prefect() as client:
            claimed = _set_state(client, flow_run, claim)
            if claimed is None and flow_run.state is not None and flow_run.state.is_cancelled():
                # Prefect rejects other states for a cancelled run. No one runs it, and its message was sent again on
                # purpose, so the state is forced.
                claimed = _set_state(client, flow_run, claim, force=True)
            if claimed is None and receive_count > 1:
                # The message was delivered again, so the worker that ran this gave up or died. Prefect still shows the
                # run as Running, because a killed process cannot report its end.
                crash = Crash(lines=tuple(lines_in_prefect(client, flow_run.id)))
                gone: State[Any] = Crashed(message=crash.message(_TAKEN_OVER))
                client.set_flow_run_state(flow_run.id, gone, force=True)
                claimed = _set_state(client, flow_run, claim)
        if not self._shown:
            return False
        if claimed is None:
            raise RunTaken(f"flow run {flow_run.name} is being run by another worker")
        flow_run.state = claimed
        return True

    def _run(self, flow_run: FlowRun, job: UploadJob) -> Receipt:
        """Run the flow in this process, and return the upload's receipt, regardless of the state that Prefect shows."""
        ended: list[Receipt | SluiceError] = []

        # Results are never stored, but without a result storage Prefect would ask its API for the default one.
        @flow(name=FLOW_NAME, validate_parameters=False, persist_result=False, result_storage=_NO_RESULTS)
        def process_upload(bucket: str, key: str, version_id: str) -> State[Any]:  # noqa: ARG001 (shown in Prefect; the job has them)
            try:
                receipt = run_observed(self._parts, job, self._run_upload, Cancellation())
            except SluiceError as error:
                ended.append(error)
                raise
            ended.append(receipt)
            return final_state(receipt)

        state: State[Any] | None = None
        try:
            state = run_flow(process_upload, flow_run=_not_suspendable(flow_run), return_type="state")  # type: ignore[assignment]
        except Abort:
            raise RunTaken(f"flow run {flow_run.name}: Prefect does not allow this worker to run it") from None
        except SluiceError:
            raise
        except Exception as error:  # noqa: BLE001 (Prefect failed during the run)
            self._go_without(error)
        if ended:
            return self._end(flow_run, state, ended[-1])
        failure = state.result(raise_on_failure=False) if state is not None and state.is_final() else None
        if isinstance(failure, Exception):
            raise StageBroke(f"the flow run ended as {state.name if state else 'nothing'}: {type(failure).__name__}")
        return self._run_upload(self._parts, job)

    def _end(self, flow_run: FlowRun, state: State[Any] | None, ended: Receipt | SluiceError) -> Receipt:
        """Return the receipt, or raise the error, with which the upload ended. If a person cancelled the flow run,
        force its final state, because Prefect declines it otherwise."""
        if isinstance(ended, UploadCancelled):
            self._force(flow_run, Cancelled(message=str(ended)))
        if isinstance(ended, SluiceError):
            raise ended
        if state is not None and not state.is_final():
            self._force(flow_run, final_state(ended))  # the work is done; a run that stays Cancelling would hide it
        return ended

    def _force(self, flow_run: FlowRun, state: State[Any]) -> None:
        with self._prefect() as client:
            client.set_flow_run_state(flow_run.id, state, force=True)

    def _go_without(self, error: Exception) -> None:
        """Continue without further requests to Prefect for this upload. Also pause requests for the next uploads,
        unless Prefect is up and rejected only this request."""
        self._shown = False
        if is_refusal(error):
            LOG.warning("Prefect rejected this upload; continuing unobserved", extra={"fields": {"why": why(error)}})
        else:
            self._connection.close(why(error))


def _known_to_events(deployment: DeploymentResponse) -> UUID:
    """Fill the cache of Prefect's events client, which saves four requests per run, and return the deployment's ID. The
    events of task runs then name the flow and the deployment, but no work pool or work queue, because these did not run
    the tasks."""
    related = {
        "deployment": (deployment.id, deployment),
        "flow": (deployment.flow_id, Flow(id=deployment.flow_id, name=FLOW_NAME, labels={})),
        "work-queue": (deployment.work_queue_id, None),
        "work-pool": (deployment.work_pool_name, None),
    }
    for kind, (identity, found) in related.items():
        cast("Any", RESOURCE_CACHE)[f"{kind}.{identity}"] = ({"kind": kind, "object": found}, datetime.now(UTC))
    return deployment.id


def _is_new(flow_run: FlowRun, received: State[Any]) -> bool:
    """Return whether `flow_run` was created just now, in the state `received`, and not on an earlier delivery."""
    expected = received.state_details.transition_id
    return flow_run.state is not None and flow_run.state.state_details.transition_id == expected


def _not_suspendable(flow_run: FlowRun) -> FlowRun:
    """Return a copy of a flow run without its deployment. For a run with a deployment, Prefect's engine would open a
    connection to find out whether a person suspends the run. The engine reads the run again before it calls the flow,
    so the flow gets the original."""
    return flow_run.model_copy(update={"deployment_id": None})


def _set_state(
    client: SyncPrefectClient, flow_run: FlowRun, state: State[Any], *, force: bool = False
) -> State[Any] | None:
    """Propose a state to the Prefect server. Return the state that it stored, or None if it declined."""
    answer = client.set_flow_run_state(flow_run.id, state, force=force)
    return (answer.state or state) if answer.status is SetStateStatus.ACCEPT else None
