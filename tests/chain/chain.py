"""The whole pipeline in a local cloud, with methods to drive and inspect it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote_plus

import httpx
import pandas as pd
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.prefect_names import PrefectNames
from blocks.settings import CONTRACTS
from deployment.aws.packaging import Timeouts
from deployment.local.cloud import LocalCloud
from deployment.local.pipeline import AUTH_SECRET, STACK_NAME, WORK_POOL, bring_up, settings_of
from deployment.local.ports import free_port
from deployment.local.prefect_server import ServerOptions
from deployment.local.processes import ProcessRecord
from deployment.prefect_setup import automations
from deployment.prefect_setup.registration import apply_limits
from deployment.project_commands import CommandFailed
from flows.pipeline.attempts import Attempt, attempt_key
from flows.pipeline.receipt import Receipt, receipt_key
from flows.refinery.contract.model import Contract
from lambda_trigger.message import UploadMessage
from lambda_trigger.windows import window_of
from tests.chain.boundary import make_boundary
from tests.emulator.records import EXTENSIONS
from tests.forking import WARM
from tests.looking import looks
from tests.privileges.calls import recorded
from tests.warm_cloud import WarmCloud

_T = TypeVar("_T")
END_SECONDS = 90.0
NAMES = PrefectNames(STACK_NAME)
UPLOAD_DEPLOYMENT = NAMES.deployment("process-upload")


@dataclass
class Chain:
    """A running pipeline and the outputs of its stack."""

    cloud: LocalCloud
    outputs: dict[str, str]

    def __post_init__(self) -> None:
        self.s3 = self.cloud.client("s3")
        self.sqs = self.cloud.client("sqs")
        self.ecs = self.cloud.client("ecs")
        self.step_functions = self.cloud.client("stepfunctions")
        self.lambdas = self.cloud.client("lambda")

    # --- driving the pipeline ---------------------------------------------------------------------------------

    def upload(self, key: str, body: bytes) -> UploadMessage:
        """Upload a file to the landing bucket, as a user does."""
        response = self.s3.put_object(Bucket=self.outputs["LandingBucket"], Key=key, Body=body)
        return UploadMessage(
            bucket=self.outputs["LandingBucket"],
            key=key,
            version_id=response["VersionId"],
            etag=response["ETag"].strip('"'),
            size_bytes=len(body),
        )

    def event_of(self, *uploads: UploadMessage, sequencer: str = "0055AED6DCD90281E5") -> dict[str, Any]:
        """Return an S3 event with one record for each upload."""
        return {
            "Records": [
                {
                    "eventVersion": "2.1",
                    "eventSource": "aws:s3",
                    "eventTime": "2026-01-01T00:00:00.000Z",
                    "eventName": "ObjectCreated:Put",
                    "s3": {
                        "bucket": {"name": upload.bucket},
                        "object": {
                            "key": quote_plus(upload.key, safe="/"),
                            "size": upload.size_bytes,
                            "eTag": upload.etag,
                            "versionId": upload.version_id,
                            "sequencer": sequencer,
                        },
                    },
                }
                for upload in uploads
            ]
        }

    def deliver(self, event: object) -> dict[str, Any]:
        """Invoke the Lambda with an event. Return its "error", which is None if it succeeded, and its "payload"."""
        response = self.lambdas.invoke(
            FunctionName=self.outputs["TriggerFunctionName"], Payload=json.dumps(event).encode()
        )
        payload = json.loads(response["Payload"].read() or b"null")
        return {"error": response.get("FunctionError"), "payload": payload}

    @contextlib.contextmanager
    def tasks_that(
        self,
        command: list[str] | None = None,
        *,
        memory_mib: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[None]:
        """Change the command, memory or environment variables of the tasks that are launched within the context. Before
        that, wait until all earlier tasks have ended."""
        self.settle()  # a running task stays for a while, and would process what is uploaded within the context
        family = self.outputs["TaskFamily"]
        before = self.ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]
        names = ("networkMode", "cpu", "taskRoleArn", "executionRoleArn", "requiresCompatibilities", "volumes")
        common = {"family": family, **{name: before[name] for name in names if before.get(name)}}
        # The emulator returns the container's memory as a string, as CloudFormation passed it; ECS returns a number.
        container = before["containerDefinitions"][0] | {"memory": int(before["memory"])}
        variables = {each["name"]: each["value"] for each in container["environment"]} | dict(environment or {})
        memory = str(memory_mib) if memory_mib else before["memory"]
        changed = container | {
            "command": command or container["command"],
            "memory": int(memory),
            "environment": [{"name": name, "value": value} for name, value in variables.items()],
        }
        self.ecs.register_task_definition(**common, memory=memory, containerDefinitions=[changed])
        try:
            yield
        finally:
            self.ecs.register_task_definition(**common, memory=before["memory"], containerDefinitions=[container])

    def remove(self, upload: UploadMessage, receipt: Receipt) -> None:
        """Delete an object version and its published output to save disk space."""
        self.s3.delete_object(Bucket=upload.bucket, Key=upload.key, VersionId=upload.version_id)
        for output in receipt.outputs:
            self.s3.delete_object(Bucket=self.outputs["PublishedBucket"], Key=output.key)

    def sweep(self) -> None:
        """Start a drain as the schedule does. It launches tasks if too few are running for the waiting messages, or if
        a batch note is old."""
        self.step_functions.start_execution(
            stateMachineArn=self.outputs["StateMachineArn"], input=json.dumps({"source": "schedule"})
        )

    def settle(self) -> None:
        """Wait until no task and no drain is running and the queue is empty. If messages are waiting and no task is
        running, start a sweep."""

        def at_rest() -> bool:
            if self.tasks():
                return False
            messages = self.messages()
            if messages["waiting"] and not self.tasks():
                self.sweep()
                self.wait_for(lambda: self.tasks() or self.queue_is_empty(), "the sweep to start a task", 20)
            return not any(messages.values()) and not self.drains("RUNNING")

        self.wait_for(at_rest, "the chain to come to rest", 240)

    @contextlib.contextmanager
    def worker(self) -> Iterator[None]:
        """Run a worker of the work pool within the context. It asks Prefect for runs every two seconds, which takes CPU
        time, so it only runs where tests need it."""
        self.cloud.start_worker(WORK_POOL, settings_of(self.outputs), role_arn=self.outputs["TaskRoleArn"])
        try:
            yield
        finally:
            assert self.cloud.worker is not None
            self.cloud.worker.stop()
            self.cloud.worker = None

    def run_by_hand(self, deployment: str = UPLOAD_DEPLOYMENT, /, **parameters: object) -> dict[str, Any]:
        """Run a deployment as a person does, wait until the flow run has ended, and return it."""
        arguments = [part for name, value in parameters.items() for part in ("-p", f"{name}={json.dumps(value)}")]
        with contextlib.suppress(CommandFailed):  # the command fails if the run does, and the caller checks the state
            self.cloud.run(["prefect", "deployment", "run", deployment, *arguments, "--watch"], timeout_seconds=120)
        run: dict[str, Any] = self.ask_prefect("flow_runs", sort="EXPECTED_START_TIME_DESC", limit=1)[0]
        return run

    def schedule(
        self,
        job_variables: dict[str, Any] | None = None,
        deployment: str = UPLOAD_DEPLOYMENT,
        **parameters: object,
    ) -> str:
        """Start a run of a deployment as Prefect's UI does, and return the run's ID. A worker of the deployment's work
        pool picks up the run."""
        deployment_id = self.call_prefect("GET", f"/deployments/name/{deployment}")["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "job_variables": job_variables or {}}
        return str(self.call_prefect("POST", f"/deployments/{deployment_id}/create_flow_run", body)["id"])

    def apply_automations(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Apply automations as the registration of a stack does, but in this process, because starting another one is
        slow."""
        with temporary_settings({PREFECT_API_URL: self.cloud.endpoints.prefect_api_url}):
            list(automations.apply(NAMES, entries))

    def apply_limits(self, contracts: Iterable[Contract], names: PrefectNames = NAMES) -> None:
        """Apply the concurrency limits of contracts as the registration of a stack does, but in this process."""
        with temporary_settings({PREFECT_API_URL: self.cloud.endpoints.prefect_api_url}):
            list(apply_limits(names, contracts))

    def copy_contracts(self, folder: Path) -> Path:
        """Copy the project's contracts to a folder in which a test can change them, and return the folder."""
        return Path(shutil.copytree(CONTRACTS, folder, ignore=shutil.ignore_patterns("__pycache__")))

    # --- inspecting the pipeline ------------------------------------------------------------------------------

    def drains(self, status: str = "") -> list[dict[str, Any]]:
        """Return the drains of the queue as Step Functions describes them, the newest first.

        Args:
            status: if given, return only drains with this status, such as RUNNING.
        """
        pages = self.step_functions.get_paginator("list_executions").paginate(
            stateMachineArn=self.outputs["StateMachineArn"], **({"statusFilter": status} if status else {})
        )
        return [
            self.step_functions.describe_execution(executionArn=execution["executionArn"])
            for page in pages
            for execution in page["executions"]
        ]

    def window(self) -> int:
        """Return the number of the current window. Uploads of the same window share a drain."""
        return window_of(time.time(), int(self.outputs["WindowSeconds"]))

    def done(self, upload: UploadMessage, seconds: float = END_SECONDS) -> Receipt:
        """Wait until the upload has a receipt of its attempt or of a later one, and return the receipt."""

        def look() -> Receipt | None:
            if not self.has_receipt(upload):
                return None
            receipt = self.receipt(upload)
            return receipt if receipt.attempt >= upload.attempt else None

        return self.wait_for(look, f"the receipt of {upload.key}", seconds)

    def attempt(self, upload: UploadMessage) -> Attempt | None:
        """Return the record of the last failed attempt at an upload, or None if there is none."""
        key = attempt_key(upload.run_id)
        if key not in self.keys(key):
            return None
        body = self.s3.get_object(Bucket=self.outputs["PublishedBucket"], Key=key)["Body"]
        return Attempt.from_json(body.read())

    def receipt(self, upload: UploadMessage) -> Receipt:
        body = self.s3.get_object(Bucket=self.outputs["PublishedBucket"], Key=receipt_key(upload.run_id))["Body"]
        return Receipt.from_json(body.read())

    def has_receipt(self, upload: UploadMessage) -> bool:
        key = receipt_key(upload.run_id)
        return key in self.keys(key)

    def keys(self, prefix: str) -> list[str]:
        """Return every key in the published bucket that starts with `prefix`."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.outputs["PublishedBucket"], Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def table(self, key: str) -> pd.DataFrame:
        """Return a published Parquet object as a DataFrame."""
        body = self.s3.get_object(Bucket=self.outputs["PublishedBucket"], Key=key)["Body"]
        return pd.read_parquet(io.BytesIO(body.read()))

    def published(self, receipt: Receipt) -> pd.DataFrame:
        """Return the clean rows that a receipt references."""
        return pd.concat([self.table(output.key) for output in receipt.outputs if output.kind == "data"])

    def quarantined(self, receipt: Receipt) -> pd.DataFrame:
        """Return the bad rows that a receipt references."""
        return pd.concat([self.table(output.key) for output in receipt.outputs if output.kind == "quarantine"])

    def flow_runs(self, attempt: UploadMessage | Receipt) -> list[dict[str, Any]]:
        """Return the flow runs of one attempt at an upload, as Prefect's API describes them."""
        key = f"{attempt.run_id}-{attempt.attempt}" if attempt.attempt else attempt.run_id
        return self.ask_prefect("flow_runs", flow_runs={"idempotency_key": {"any_": [key]}})

    def ask_prefect(self, what: str, **filters: object) -> list[dict[str, Any]]:
        """Return the objects of one type from Prefect's API. `what` is flow_runs, task_runs, logs, artifacts or another
        type."""
        found: list[dict[str, Any]] = self.call_prefect("POST", f"/{what}/filter", filters)
        return found

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """Return a flow run as Prefect's API describes it."""
        run: dict[str, Any] = self.call_prefect("GET", f"/flow_runs/{flow_run_id}")
        return run

    def states_of(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Return all states that a flow run has been in, the oldest first."""
        states: list[dict[str, Any]] = self.call_prefect("GET", f"/flow_run_states/?flow_run_id={flow_run_id}")
        return states

    def final(self, flow_run_id: str) -> dict[str, Any] | None:
        """Return a flow run if it has ended, or None."""
        run = self.flow_run(flow_run_id)
        return run if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    def artifacts(self, key: str, flow_run_id: str | None = None) -> list[dict[str, Any]]:
        """Return the artifacts with the given key. If `flow_run_id` is given, return only those of that run."""
        wanted = {"key": {"any_": [key]}, **({"flow_run_id": {"any_": [flow_run_id]}} if flow_run_id else {})}
        found: list[dict[str, Any]] = self.call_prefect("POST", "/artifacts/filter", {"artifacts": wanted})
        return found

    def log_of(self, flow_run_id: str) -> str:
        """Return the messages that a flow run has logged in Prefect so far."""
        lines = self.call_prefect("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run_id]}}})
        return "\n".join(line["message"] for line in lines)

    def call_prefect(self, method: str, path: str, body: object = None) -> Any:
        """Call Prefect's API, and return the JSON of the response. The call is repeated while the response is 503,
        which means that Prefect's database is locked.

        Raises:
            httpx.HTTPStatusError: Prefect rejects the call.
        """
        auth_string = self.cloud.endpoints.prefect_auth_string
        auth = httpx.BasicAuth(*auth_string.split(":", 1)) if auth_string else None

        def answer() -> httpx.Response | None:
            url = f"{self.cloud.endpoints.prefect_api_url}{path}"
            response = httpx.request(method, url, json=body, auth=auth, timeout=60)
            busy = response.status_code == httpx.codes.SERVICE_UNAVAILABLE  # Prefect's client retries, too
            return None if busy else response

        response = self.wait_for(answer, f"Prefect to answer {path}").raise_for_status()
        return response.json() if response.content else None

    def messages(self, queue: str = "QueueUrl") -> dict[str, int]:
        """Return how many messages of a queue are visible ("waiting") and how many are in flight ("held"). `queue` is
        the name of the stack output that contains the queue's URL."""
        names = {"waiting": "ApproximateNumberOfMessages", "held": "ApproximateNumberOfMessagesNotVisible"}
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.outputs[queue], AttributeNames=list(names.values()))
        return {short: int(attributes["Attributes"][name]) for short, name in names.items()}

    def queue_is_empty(self) -> bool:
        """Return whether the upload queue has no message, neither visible nor in flight."""
        return not any(self.messages().values())

    def tasks(self) -> list[int]:
        """Return the process IDs of the running tasks."""
        found = []
        for path in (self.cloud.state_dir / "processes").glob("*"):
            try:
                record = ProcessRecord(**json.loads(path.read_text()))
            except (OSError, ValueError):
                continue  # the process has just ended
            if record.what.startswith("task ") and record.is_alive():
                found.append(record.pid)
        return found

    def pool_is_idle(self) -> bool:
        """Return whether the work pool's worker executes no run: it has no child process other than warm ones
        (tests/forking.py)."""
        assert self.cloud.worker is not None
        listed = Path(f"/proc/{self.cloud.worker.pid}").glob("task/*/children")
        children = [child for path in listed for child in path.read_text().split()]
        return all(Path(f"/proc/{child}/comm").read_text().strip() == WARM for child in children)

    def kill_tasks(self) -> int:
        """Kill every running task and its children with SIGKILL, and return the number of tasks."""
        pids = self.tasks()
        for pid in pids:
            os.killpg(pid, signal.SIGKILL)
        return len(pids)

    @contextlib.contextmanager
    def denied(self, action: str) -> Iterator[None]:
        """Deny an action to the tasks' role until the context ends."""
        iam, role = self.cloud.client("iam"), self.outputs["TaskRoleArn"].rpartition("/")[2]
        statement = {"Effect": "Deny", "Action": action, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_role_policy(RoleName=role, PolicyName="broken", PolicyDocument=policy)
        try:
            yield
        finally:
            iam.delete_role_policy(RoleName=role, PolicyName="broken")

    def log_lines(self, group: str) -> list[dict[str, Any]]:
        """Return the JSON objects in a log group. `group` is the name of the stack output that contains the log group's
        name."""
        logs = self.cloud.client("logs")
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=self.outputs[group])
        lines = (event["message"] for page in pages for event in page["events"])
        return [json.loads(line[line.index("{") :]) for line in lines if "{" in line and line.rstrip().endswith("}")]

    def wait_for(self, look: Callable[[], _T | None], what: str, seconds: float = END_SECONDS) -> _T:
        """Wait until `look` returns something true, and return that.

        Raises:
            ServiceDied: nothing true was returned within `seconds`, and a service of the local cloud has died.
            AssertionError: nothing true was returned within `seconds`. The message contains `what`.
        """
        for _ in looks(seconds):
            found = look()
            if found:
                return found
        self.cloud.check()
        raise AssertionError(f"waited {seconds:.0f} s in vain for {what}; queue: {self.messages()}")


# The messages of a dead task become visible again after this time. It is short for tests, but long enough for a busy
# machine.
VISIBILITY_TIMEOUT_SECONDS = 20


@contextlib.contextmanager
def running_chain(
    *,
    task_seconds: int = 300,
    docker: bool = False,
    warm: bool = True,
    worker: bool = True,
    prefect_options: ServerOptions = ServerOptions(),
    **parameters: str,
) -> Iterator[Chain]:
    """Run a pipeline: a local cloud with IAM enforced, a Prefect server, the stack and, unless `worker` is False, a
    worker.

    Args:
        task_seconds: the time after which the state machine stops a task.
        docker: whether to run tasks as containers, in the engine that DOCKER_HOST names.
        warm: whether to fork processes with their imports made (tests/forking.py) instead of starting new ones.
        prefect_options: the options of the Prefect server, such as a PostgreSQL database and a password.
        parameters: parameters of the template, in addition to those that make the tests fast.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-chain-") as folder:
        # No other local cloud prefers this port, so it is still free when a test restarts the Prefect server.
        with (WarmCloud if warm else LocalCloud)(
            Path(folder) / "state",
            wait_scale=0.1,
            prefect_port=free_port(),
            prefect_options=prefect_options,
            docker=docker,
            emulator_extensions=EXTENSIONS,
        ) as cloud:
            outputs = bring_up(
                cloud,
                parameters={
                    "VisibilityTimeoutSeconds": str(VISIBILITY_TIMEOUT_SECONDS),
                    "MaxConcurrentTasks": "2",
                    "WindowSeconds": "5",
                    "SettleSeconds": "5",
                    "RetryDelaySeconds": "15",  # the task that replaces a dead one stays for five times as long
                    "SweepSchedule": "rate(1 minute)",
                    "PermissionsBoundaryArn": make_boundary(
                        cloud, STACK_NAME, PrefectSecretArn=f"arn:aws:secretsmanager:*:*:secret:{AUTH_SECRET}-*"
                    ),
                    **parameters,
                },
                timeouts=Timeouts(task_seconds=task_seconds, drain_seconds=3_600),
            )
            chain = Chain(cloud, outputs)
            # The tasks' long poll can be shorter than on AWS, because here a single server has all messages. If tasks
            # run in containers, their task definition is not changed.
            sooner = chain.tasks_that(environment={"SLUICE_RECEIVE_WAIT_SECONDS": "1"})
            nothing = contextlib.nullcontext()
            with recorded(cloud, STACK_NAME), nothing if docker else sooner, chain.worker() if worker else nothing:
                yield chain
