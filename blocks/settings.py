"""The pipeline's settings, read once into one typed model.

This module does not import Prefect, because that import creates a folder in the user's home directory.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError

from blocks.limits import COPY_FRACTION, Limits
from blocks.prefect_names import PrefectNames
from flows.refinery.errors import TerminalError
from lambda_trigger.ignored_names import IGNORED_NAMES

CONTRACTS = Path(__file__).resolve().parent.parent / "flows" / "contracts"
STACK_OUTPUTS = {
    "stack": "StackName",
    "landing_bucket": "LandingBucket",
    "published_bucket": "PublishedBucket",
    "queue_url": "QueueUrl",
    "incoming_prefix": "IncomingPrefix",
    "ignored_names": "IgnoredNames",
    "state_machine_arn": "StateMachineArn",
    "dead_letter_queue_url": "DeadLetterQueueUrl",
    "window_seconds": "WindowSeconds",
}
"""For each setting, the stack output that contains its value."""
_PREFIX = "SLUICE_"


class SettingsMissing(TerminalError):
    """A setting is missing or invalid in the environment or in the stack's outputs, or there is no settings block."""

    def __init__(self, message: str, names: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)  # the variables or stack outputs that are missing or invalid


class PipelineSettings(BaseModel):
    """The pipeline's settings: where uploads come from, where results go, and which limits apply.

    The container reads them from environment variables, each named `SLUICE_` and the field's name in capitals. Runs
    that a person starts read them from a Prefect block with the same fields (blocks/settings_block.py).
    """

    stack: str = Field(description="The stack's name; Prefect's deployments and concurrency limits are named after it.")
    landing_bucket: str = Field(description="The bucket that files are uploaded to.")
    published_bucket: str = Field(description="The bucket that clean data, quarantine and receipts are written to.")
    queue_url: str = Field(description="The SQS queue that holds one message for each upload.")
    incoming_prefix: str = Field(
        "incoming/", description="The prefix of uploads in the landing bucket.", pattern=r"^([^/]+/)+$"
    )
    ignored_names: str = Field(
        IGNORED_NAMES,
        description="Patterns, separated by commas. Files are ignored if their name or a folder's name matches.",
    )
    visibility_timeout_seconds: int = Field(
        120,
        ge=10,
        le=43_200,
        description="How long a received message stays invisible; renewed while the task holds it.",
    )
    receive_wait_seconds: int = Field(5, ge=0, le=20, description="How long one receive call waits for a message.")
    max_task_seconds: int = Field(
        3_000, ge=10, le=86_400, description="The age after which a task receives no further messages."
    )
    stage_timeout_seconds: int = Field(
        1_500,
        ge=1,
        le=43_200,
        description="How long the refine stage may take for one upload. If it takes longer, the upload is "
        "tried again; if that happens twice in a row, the file is rejected.",
    )
    retry_delay_seconds: int = Field(
        30,
        ge=0,
        le=900,
        description="After a failure, a message is delivered again after this time multiplied by its delivery count.",
    )
    max_object_bytes: int = Field(
        10 * 1024**3, ge=1, description="An upload larger than this is rejected before it is downloaded."
    )
    max_copy_fraction: float = Field(
        COPY_FRACTION,
        ge=0,
        le=1,
        description="A file larger than this fraction of the free disk space is read from S3 in ranges, not copied.",
    )
    dead_letter_queue_url: str = Field(
        "", description="The queue for uploads that Sluice gave up on; empty for a stack of an older release."
    )
    max_receive_count: int = Field(
        5, ge=1, le=1_000, description="How many times a message is delivered before it moves to the dead-letter queue."
    )
    state_machine_arn: str = Field("", description="The state machine that launches the tasks that drain the queue.")
    window_seconds: int = Field(
        60, ge=5, le=900, description="The length of a window, in which all uploads share one drain execution."
    )
    max_tasks: int = Field(4, ge=1, le=40, description="How many tasks may drain the queue at the same time.")
    messages_per_task: int = Field(
        100, ge=1, description="If more messages than this wait for each task, more tasks start, up to max_tasks."
    )
    live_backlog: int = Field(
        50,
        ge=0,
        description="If more messages than this are waiting, uploads are recorded in Prefect afterwards, in bulk.",
    )
    dataset_metrics: bool = Field(
        False, description="Whether CloudWatch metrics are also written for each dataset, which costs more."
    )
    contracts_folder: Path | None = Field(
        None, description="The folder with the contracts, one subfolder per dataset; if empty, the one in the code."
    )

    @property
    def contracts_root(self) -> Path:
        """Return the folder of the contracts on this machine."""
        return self.contracts_folder or CONTRACTS

    @property
    def task_limit_seconds(self) -> int:
        """Return the age at which a task ends itself, even in the middle of an upload (blocks/limits.py). It starts no
        upload after `max_task_seconds`."""
        return Limits(self.stage_timeout_seconds, self.max_task_seconds, self.max_object_bytes).task_seconds

    def is_upload(self, bucket: str, key: str) -> bool:
        """Return whether an object is an upload, that is, in the landing bucket and under the incoming prefix."""
        return bucket == self.landing_bucket and key.startswith(self.incoming_prefix)

    @property
    def uploads_uri(self) -> str:
        return f"s3://{self.landing_bucket}/{self.incoming_prefix}"

    @property
    def prefect_names(self) -> PrefectNames:
        return PrefectNames(self.stack)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from environment variables. Raise SettingsMissing, which names the variables, if some are
        missing or invalid."""
        given = {
            name: environment[_PREFIX + name.upper()]
            for name in PipelineSettings.model_fields
            if environment.get(_PREFIX + name.upper(), "") != ""
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = {
                f"{_PREFIX}{str(problem['loc'][0]).upper()}": problem["msg"]
                for problem in error.errors(include_input=False, include_url=False)
            }
            wrong = "; ".join(f"{name}: {reason}" for name, reason in problems.items())
            raise SettingsMissing(f"the environment does not configure the pipeline: {wrong}", problems) from error

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, str]) -> Self:
        """Read the settings in STACK_OUTPUTS from the stack's outputs. The other settings get their defaults. Raise
        SettingsMissing, which names the outputs, if some are missing."""
        missing = [output for output in STACK_OUTPUTS.values() if output not in outputs]
        if missing:
            raise SettingsMissing(f"the stack has no outputs {', '.join(missing)}; is it one of Sluice's?", missing)
        return cls.model_validate({field: outputs[output] for field, output in STACK_OUTPUTS.items()})
