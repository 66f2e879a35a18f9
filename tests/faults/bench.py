"""A test bench for faults: uploads with separate queues, workers with injected faults, and checks that hold after any
fault.

A worker runs the container's entry point with the task's role, in a fork of a process that has already made all
imports. It uses the real Prefect server, and the local cloud in place of AWS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from blocks.settings import CONTRACTS
from deployment import PROJECT_ROOT
from deployment.local.pipeline import STACK_NAME, settings_of
from flows.pipeline.protocol import IndexEntry, index_key
from flows.pipeline.receipt import Receipt, Status, receipt_key
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.faults.saboteur import DISK_VARIABLE, Sabotage, as_variable
from tests.forking import popen
from tests.looking import looks
from tests.restart import restart_emulator

VISIBILITY_SECONDS = 10  # the minimum that the settings allow
_TASK_QUEUE_ACTIONS = [
    "sqs:GetQueueAttributes",
    "sqs:SendMessage",
    "sqs:ReceiveMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
]


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: its exit code and its log lines."""

    exit_code: int
    lines: list[dict[str, Any]]

    @property
    def was_killed(self) -> bool:
        """Return whether SIGKILL ended the worker."""
        return self.exit_code == -signal.SIGKILL

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the worker's log lines with the given value of `event`."""
        return [line for line in self.lines if line.get("event") == event]

    @property
    def errors(self) -> str:
        """Return the errors in the worker's log lines, separated by semicolons."""
        return "; ".join(str(line["error"]) for line in self.lines if "error" in line)


@dataclass
class Worker:
    """A running worker process and its log file."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self, seconds: float = 120) -> Outcome:
        """Wait until the worker has ended, and return how it ended. Kill it and raise AssertionError if it takes too
        long."""
        try:
            exit_code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the worker did not end in {seconds} s:\n{self.log.read_text()[-3000:]}") from None
        return Outcome(exit_code, self._lines())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker."""
        self.process.send_signal(number)

    def has_logged(self, event: str) -> bool:
        """Return whether the worker's log already has a line with the given value of `event`."""
        return any(line.get("event") == event for line in self._lines())

    def _lines(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@dataclass
class Case:
    """An upload with a separate queue and dead-letter queue."""

    bench: Bench
    upload: UploadMessage
    queue_url: str
    dead_letter_url: str
    folder: Path
    max_receives: int = 5
    _workers: int = 0

    # --- driving the case -------------------------------------------------------------------------------------

    def send(self, body: str | None = None) -> None:
        """Put the upload's message, or `body`, into the queue."""
        self.bench.chain.sqs.send_message(QueueUrl=self.queue_url, MessageBody=body or self.upload.to_json())

    def start(
        self, *plan: Sabotage, environment: dict[str, str] | None = None, disk_bytes: int | None = None
    ) -> Worker:
        """Start a worker for this upload, with the faults of `plan`."""
        self._workers += 1
        home = self.folder / f"worker-{self._workers}"
        (home / "tmp").mkdir(parents=True)
        variables = {
            **self.bench.task_environment,
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "SLUICE_QUEUE_URL": self.queue_url,
            "SLUICE_DEAD_LETTER_QUEUE_URL": self.dead_letter_url,
            "SLUICE_MAX_RECEIVE_COUNT": str(self.max_receives),
            **as_variable(plan),
            **({DISK_VARIABLE: str(disk_bytes)} if disk_bytes else {}),
            **(environment or {}),
        }
        return Worker(forked("tests.faults.saboteur", environment=variables, log=home / "log"), home / "log")

    def work(
        self, *plan: Sabotage, environment: dict[str, str] | None = None, disk_bytes: int | None = None
    ) -> Outcome:
        """Run a worker until it has ended, and return how it ended."""
        return self.start(*plan, environment=environment, disk_bytes=disk_bytes).ended()

    def gate(self, on: str, where: str = "", nth: int = 1) -> tuple[Sabotage, Path]:
        """Return a fault that pauses a worker at a call, and the path of the file that releases the worker."""
        path = self.folder / f"{uuid.uuid4().hex[:8]}.gate"
        return Sabotage(on=on, where=where, nth=nth, do="hold", gate=str(path)), path

    def copy_contracts(self) -> Path:
        """Copy the project's contracts, so that a test can change them, and return the folder."""
        folder = self.folder / "contracts"
        shutil.copytree(CONTRACTS, folder)
        return folder

    def held_at(self, gate: Path) -> None:
        """Wait until a worker has paused at the gate."""
        self.bench.chain.wait_for(gate.with_suffix(".reached").exists, "a worker to come to the gate")

    # --- inspecting the case ----------------------------------------------------------------------------------

    def count(self, url: str | None = None) -> dict[str, int]:
        """Return how many messages of the queue are visible ("waiting") and how many are in flight ("held")."""
        return count_of(self.bench.chain, url or self.queue_url)

    @property
    def queue_arn(self) -> str:
        return arn_of(self.bench.chain, self.queue_url)

    def wait_until_visible(self) -> None:
        """Wait until the upload's message can be received again."""
        self.bench.chain.wait_for(lambda: self.count()["waiting"] > 0, "the message to become visible again")

    def stranded(self) -> bool:
        """Return whether the upload has no receipt and its message still exists."""
        return sum(self.count().values()) == 1 and not self.bench.chain.has_receipt(self.upload)

    def receipt(self) -> Receipt:
        return self.bench.chain.receipt(self.upload)

    def kept_promises(self, status: Status = Status.PUBLISHED, *, dead_letters: int = 0, rows: int = 3) -> Receipt:
        """Check everything that must hold for the upload after any fault, and return its receipt."""
        receipt = kept_promises(self.bench.chain, self.upload, status)
        assert receipt.rows.rows_in == rows or status is Status.REJECTED
        assert self.count() == {"waiting": 0, "held": 0}
        assert sum(self.count(self.dead_letter_url).values()) == dead_letters
        return receipt


def arn_of(chain: Chain, queue_url: str) -> str:
    asked = chain.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    return str(asked["Attributes"]["QueueArn"])


def count_of(chain: Chain, url: str) -> dict[str, int]:
    """Return how many messages of a queue are visible ("waiting") and how many are in flight ("held")."""
    names = {"waiting": "ApproximateNumberOfMessages", "held": "ApproximateNumberOfMessagesNotVisible"}
    found = chain.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names.values()))["Attributes"]
    return {short: int(found[name]) for short, name in names.items()}


def kept_promises(chain: Chain, upload: UploadMessage, status: Status = Status.PUBLISHED) -> Receipt:
    """Check that an upload has one receipt with the given status, that exactly its current outputs exist, that no row
    is missing, and that the index agrees. Return the receipt."""
    receipt = chain.receipt(upload)
    assert receipt.status is status, receipt.reason
    assert versions_of(chain, receipt_key(upload.run_id)) == 1, "the receipt was written more than once"
    assert receipt.rows.balanced
    written = [key for kind in ("data/", "quarantine/") for key in chain.keys(kind) if upload.run_id in key]
    entry = index_of(chain, receipt)
    current = entry.current is not None and entry.current.run_id == upload.run_id
    if current or status is Status.REJECTED:
        assert sorted(written) == sorted(output.key for output in receipt.outputs)
        for output in receipt.outputs:
            body = chain.s3.get_object(Bucket=chain.outputs["PublishedBucket"], Key=output.key)["Body"].read()
            assert hashlib.sha256(body).hexdigest() == output.sha256, "the receipt references other data"
        assert sum(output.rows for output in receipt.outputs if output.kind == "data") == receipt.rows.published
    else:
        assert not [key for key in written if key.startswith("data/")], "a newer version's output replaced it"
    assert current == (status is Status.PUBLISHED) or entry.latest.run_id != upload.run_id
    assert entry.retired == ()
    return receipt


def versions_of(chain: Chain, key: str) -> int:
    """Return the number of versions of an object in the published bucket."""
    listed = chain.s3.list_object_versions(Bucket=chain.outputs["PublishedBucket"], Prefix=key)
    return sum(version["Key"] == key for version in listed.get("Versions", []))


def index_of(chain: Chain, receipt: Receipt) -> IndexEntry:
    """Return the index entry for the source key of a receipt."""
    key = index_key(receipt.contract.dataset, receipt.source.bucket, receipt.source.key)
    body = chain.s3.get_object(Bucket=chain.outputs["PublishedBucket"], Key=key)["Body"]
    return IndexEntry.model_validate_json(body.read())


@dataclass
class Bench:
    """A running pipeline, with methods that create cases and inject faults."""

    chain: Chain
    folder: Path
    _cases: Iterator[int] = field(default_factory=lambda: iter(range(1, 10_000)))

    def __post_init__(self) -> None:
        self.iam = self.chain.cloud.client("iam")
        self.task_role = self._role_of_task()
        self._allow_queues()

    def case(self, name: str = "", body: bytes = b"", *, max_receives: int = 5, deliver: bool = True) -> Case:
        """Upload a file, which has three good orders by default, and send its message to a separate queue, unless
        `deliver` is False."""
        number = next(self._cases)
        key = name or f"incoming/orders/fault-{number}.csv"
        sqs = self.chain.sqs
        queue = f"{STACK_NAME}-fault-{number}"  # the roles' boundary allows only names with this prefix
        dead = sqs.create_queue(QueueName=f"{queue}-dead")["QueueUrl"]
        redrive = json.dumps({"deadLetterTargetArn": arn_of(self.chain, dead), "maxReceiveCount": max_receives})
        url = sqs.create_queue(QueueName=queue, Attributes={"RedrivePolicy": redrive})["QueueUrl"]
        upload = dataclasses.replace(self.chain.upload(key, body or good_orders(3)), sequencer=f"{number:016X}")
        folder = self.folder / f"case-{number}"
        folder.mkdir()
        case = Case(self, upload, url, dead, folder, max_receives)
        if deliver:
            case.send()
        return case

    def stack_queue(self) -> Case:
        """Return a case that uses the stack's queues and has no upload."""
        number, outputs = next(self._cases), self.chain.outputs
        folder = self.folder / f"case-{number}"
        folder.mkdir()
        nothing = UploadMessage(bucket=outputs["LandingBucket"], key="", version_id=None, etag="", size_bytes=0)
        return Case(self, nothing, outputs["QueueUrl"], outputs["DeadLetterQueueUrl"], folder)

    @contextlib.contextmanager
    def denied(self, role: str, action: str, resource: str = "*") -> Iterator[None]:
        """Deny an action to a role until the context ends."""
        name = f"fault-{uuid.uuid4().hex[:8]}"
        self._put_policy(role, name, "Deny", [action], resource)
        try:
            yield
        finally:
            with contextlib.suppress(self.iam.exceptions.NoSuchEntityException):  # a killed emulator may have lost it
                self.iam.delete_role_policy(RoleName=role, PolicyName=name)

    def wait_until_saved(self) -> None:
        """Wait until the AWS emulator has saved its current state, or a later one."""
        saved = self.chain.cloud.state_dir / "cloud" / "state" / "sqs.json"
        times = [saved.stat().st_mtime_ns]
        for _ in range(2):  # the first save may have begun earlier
            assert eventually(lambda: saved.stat().st_mtime_ns > times[-1])
            times.append(saved.stat().st_mtime_ns)

    def kill_cloud(self) -> None:
        """Kill the AWS emulator with SIGKILL, and start it again with the state that it had saved."""
        emulator = self.chain.cloud.emulator
        assert emulator is not None
        assert emulator.pid is not None
        os.kill(emulator.pid, signal.SIGKILL)
        assert eventually(lambda: emulator.pid is None)
        restart_emulator(self.chain.cloud)
        self.__dict__.pop("task_environment", None)  # workers need new credentials, because role sessions are lost
        self._allow_queues()  # the emulator may have lost the policy, if it was not saved yet

    def role_named(self, part: str) -> str:
        """Return the name of the stack's role that contains `part`."""
        names = [str(role["RoleName"]) for role in self.iam.list_roles(MaxItems=1000)["Roles"]]
        (name,) = (name for name in names if part in name)
        return name

    @cached_property
    def task_environment(self) -> dict[str, str]:
        """Return a worker's environment, with the task's settings, short waits and the credentials of the task's
        role."""
        chain = self.chain
        return {
            **chain.cloud.endpoints.environment,
            **settings_of(chain.outputs),
            **self.credentials_of(self.task_role),
            "SLUICE_VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_SECONDS),
            "SLUICE_RECEIVE_WAIT_SECONDS": "1",
            "SLUICE_RETRY_DELAY_SECONDS": "0",
        }

    def credentials_of(self, role: str) -> dict[str, str]:
        """Return a role's credentials as environment variables. Its trust policy is changed for a short time to allow
        this."""
        anybody = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [anybody]})
        before = self.iam.get_role(RoleName=role)["Role"]
        self.iam.update_assume_role_policy(RoleName=role, PolicyDocument=trust)
        sts = self.chain.cloud.client("sts")
        given = sts.assume_role(RoleArn=before["Arn"], RoleSessionName="fault")["Credentials"]
        trusted = json.dumps(before["AssumeRolePolicyDocument"])
        self.iam.update_assume_role_policy(RoleName=role, PolicyDocument=trusted)
        return {
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }

    def _role_of_task(self) -> str:
        described = self.chain.ecs.describe_task_definition(taskDefinition="sluice-drain")["taskDefinition"]
        return str(described["taskRoleArn"]).rsplit("/", 1)[-1]

    def _allow_queues(self) -> None:
        queues = f"arn:aws:sqs:{self.chain.cloud.region}:*:{STACK_NAME}-fault-*"
        self._put_policy(self.task_role, "fault-queues", "Allow", _TASK_QUEUE_ACTIONS, queues)

    def _put_policy(self, role: str, name: str, effect: str, actions: list[str], resource: str) -> None:
        statement = {"Effect": effect, "Action": actions, "Resource": resource}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)


def forked(module: str, *arguments: str, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Run a module in a process that is forked from one that has made its imports, with its output in `log`."""
    with log.open("wb") as output:
        return popen()(
            [sys.executable, "-m", module, *arguments],
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def eventually(look: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until a condition is true, and return True, or return False if it is not true within `seconds`."""
    return any(look() for _ in looks(seconds))
