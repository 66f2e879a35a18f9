"""The soak's environment: S3, SQS and Step Functions in the local cloud, with buckets and queues like those of the
stack, and a Prefect server with the deployment for uploads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
import httpx

from deployment.environment_variables import only
from deployment.local.cloud import LocalCloud
from flows.composition import parts_of_environment
from flows.observability.run_identity import FLOW_NAME
from flows.pipeline.commit import find_orphaned
from lambda_trigger.message import MessageUnreadable, UploadMessage
from tests.faults.bench import VISIBILITY_SECONDS

_MAX_RECEIVES = 5
_STACK = "soak"
_RUNS_ASKED_AT_ONCE = 100
# The state machine only ensures that each drain's name is used once. The soak itself does what a drain would do.
_NOTHING_TO_DO = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


@dataclass
class Ground:
    """The buckets, the queues and the state machine of a soak."""

    cloud: LocalCloud
    landing: str = "soak-landing"
    published: str = "soak-published"

    def __post_init__(self) -> None:
        self._sqs = self.cloud.client("sqs")
        self._s3 = self.cloud.client("s3")
        for bucket in (self.landing, self.published):
            self._s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": self.cloud.region})
            self._s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        self.dead_letter_url = self._sqs.create_queue(QueueName="soak-dead")["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self.dead_letter_url, AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": _MAX_RECEIVES}
        attributes = {"RedrivePolicy": json.dumps(redrive)}
        self.queue_url = self._sqs.create_queue(QueueName="soak", Attributes=attributes)["QueueUrl"]
        role = self.cloud.client("iam").create_role(RoleName="soak", AssumeRolePolicyDocument=json.dumps(_TRUST))[
            "Role"
        ]
        made = self.cloud.client("stepfunctions").create_state_machine(
            name="soak", definition=json.dumps(_NOTHING_TO_DO), roleArn=role["Arn"]
        )
        self.state_machine_arn = str(made["stateMachineArn"])
        self._prefect = httpx.Client(base_url=self.cloud.endpoints.prefect_api_url, timeout=120)
        flow = self.ask_prefect("flows/", {"name": FLOW_NAME})
        self.ask_prefect("deployments/", {"name": _STACK, "flow_id": flow["id"]})
        self.redriven = 0
        self.missing: type[Exception] = self._s3.exceptions.NoSuchKey

    @property
    def endpoint_url(self) -> str:
        """Return the URL of the AWS emulator."""
        return self.cloud.endpoints.aws_endpoint_url

    def session(self) -> boto3.Session:
        """Return a session with the credentials of the AWS emulator's root user."""
        return boto3.Session("test", "test", region_name=self.cloud.region)

    def client(self, service: str) -> Any:
        """Return a client without faults, for checks from the outside."""
        return self.cloud.client(service)

    def task_environment(self, **more: str) -> dict[str, str]:
        """Return a worker's environment. Waits are short, and runs are live only near the end, when few messages are
        waiting."""
        return {
            **self.cloud.endpoints.environment,
            "SLUICE_STACK": _STACK,
            "SLUICE_LIVE_BACKLOG": "5",
            "SLUICE_LANDING_BUCKET": self.landing,
            "SLUICE_PUBLISHED_BUCKET": self.published,
            "SLUICE_QUEUE_URL": self.queue_url,
            "SLUICE_DEAD_LETTER_QUEUE_URL": self.dead_letter_url,
            "SLUICE_MAX_RECEIVE_COUNT": str(_MAX_RECEIVES),
            "SLUICE_RECEIVE_WAIT_SECONDS": "1",
            "SLUICE_VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_SECONDS),
            "SLUICE_MAX_TASK_SECONDS": "60",
            "SLUICE_RETRY_DELAY_SECONDS": "0",
            **more,
        }

    def ask_prefect(self, path: str, body: dict[str, Any]) -> Any:
        """Post to Prefect's API, and return the JSON of the response."""
        return self._prefect.post(f"/{path}", json=body).raise_for_status().json()

    def flow_runs(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the flow runs with these idempotency keys."""
        for start in range(0, len(keys), _RUNS_ASKED_AT_ONCE):
            asked = {"flow_runs": {"idempotency_key": {"any_": keys[start : start + _RUNS_ASKED_AT_ONCE]}}}
            yield from self.ask_prefect("flow_runs/filter", asked)

    def count(self, url: str = "") -> dict[str, int]:
        """Return how many messages of a queue are visible ("waiting") and how many are in flight ("held")."""
        names = {"waiting": "ApproximateNumberOfMessages", "held": "ApproximateNumberOfMessagesNotVisible"}
        asked = {"QueueUrl": url or self.queue_url, "AttributeNames": list(names.values())}
        found = self._sqs.get_queue_attributes(**asked)["Attributes"]
        return {short: int(found[name]) for short, name in names.items()}

    def redrive(self) -> None:
        """Redrive the dead-letter queue as an operator does. Readable messages return to the queue, and the others
        stay."""
        for _ in range(self.count(self.dead_letter_url)["waiting"]):
            asked = {"QueueUrl": self.dead_letter_url, "MaxNumberOfMessages": 1, "VisibilityTimeout": 60}
            for message in self._sqs.receive_message(**asked).get("Messages", []):
                try:
                    UploadMessage.from_json(message["Body"])
                except MessageUnreadable:
                    continue
                self._sqs.send_message(QueueUrl=self.queue_url, MessageBody=message["Body"])
                self._sqs.delete_message(QueueUrl=self.dead_letter_url, ReceiptHandle=message["ReceiptHandle"])
                self.redriven += 1

    def delete_orphaned(self, environment: dict[str, str]) -> int:
        """Delete the data that overtaken workers left behind, as the reconcile flow does, and return the number of
        objects."""
        with only(environment):
            parts = parts_of_environment()
            found = list(find_orphaned(parts, lambda _: True))
            for key in found:
                parts.store.delete(key)
        return len(found)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys in the published bucket that start with `prefix`."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.published, Prefix=prefix)
        for page in pages:
            yield from (entry["Key"] for entry in page.get("Contents", []))

    def versions(self, bucket: str, prefix: str = "") -> Iterator[tuple[str, str]]:
        """Yield the key and the version ID of every object version that was written with a key that starts with
        `prefix`."""
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            yield from ((entry["Key"], entry["VersionId"]) for entry in page.get("Versions", []))

    def read(self, key: str) -> bytes:
        """Return the content of an object in the published bucket."""
        body: bytes = self._s3.get_object(Bucket=self.published, Key=key)["Body"].read()
        return body

    def metadata(self, key: str, version_id: str) -> dict[str, str]:
        """Return the metadata of one version of an object in the published bucket."""
        found: dict[str, str] = self._s3.head_object(Bucket=self.published, Key=key, VersionId=version_id)["Metadata"]
        return found
