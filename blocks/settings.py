"""The pipeline's settings: read once, in one typed place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prefect.blocks.core import Block
from pydantic import Field, ValidationError

from blocks.aws import LOGO_URL
from blocks.stack_outputs import OUTPUTS
from flows.refinery.errors import TerminalError

BLOCK_NAME = "sluice"
_PREFIX = "SLUICE_"
CONTRACTS = Path(__file__).resolve().parent.parent / "flows" / "contracts"


class SettingsMissing(TerminalError):
    """A setting that has no default is not in the environment and there is no block to read it from."""


class PipelineSettings(Block):
    """Where uploads come from, where results go, and the limits that apply on the way.

    In the container these come from its environment (`SLUICE_` and the field's name in capitals); runs started
    from Prefect by hand read the block of the same fields.
    """

    _block_type_name = "Sluice pipeline settings"
    _block_type_slug = "sluice-pipeline-settings"
    _description = (
        "Where uploads come from, where results go, and the limits that apply on the way. Runs that are started by "
        "hand read it; the container has all of it in its environment."
    )
    _logo_url = LOGO_URL

    landing_bucket: str = Field(description="The bucket that files are dropped into.")
    published_bucket: str = Field(description="The bucket that clean data, quarantine and receipts are written to.")
    queue_url: str = Field(description="The SQS queue that holds one message for each upload.")
    incoming_prefix: str = Field(
        "incoming/", description="Where in the landing bucket uploads are dropped.", pattern=r"^([^/]+/)+$"
    )
    visibility_timeout_seconds: int = Field(
        120,
        ge=10,
        le=43_200,
        description="How long a received message stays invisible; it is extended while the work goes on.",
    )
    receive_wait_seconds: int = Field(10, ge=0, le=20, description="How long one receive call waits for a message.")
    idle_seconds: int = Field(
        60,
        ge=0,
        le=3_600,
        description="How long a task waits at an empty queue for its own file's receipt before it gives up.",
    )
    max_task_seconds: int = Field(
        3_000, ge=10, le=86_400, description="After this long a task takes no further message."
    )
    stage_timeout_seconds: int = Field(
        1_500,
        ge=1,
        le=43_200,
        description="How long validating or preprocessing one upload may take; once it is tried again, then rejected.",
    )
    retry_delay_seconds: int = Field(
        30, ge=0, le=900, description="How long a message rests after a failure that may pass, times its deliveries."
    )
    max_object_bytes: int = Field(
        10 * 1024**3, ge=1, description="A larger upload is rejected before it is downloaded."
    )
    deployment: str = Field(
        "process-upload/upload", description="The Prefect deployment under which uploads appear, as FLOW/DEPLOYMENT."
    )
    state_machine_arn: str = Field(
        "", description="The state machine that sees an upload through; only the reconcile flow needs to know it."
    )
    contracts_folder: Path | None = Field(
        None, description="The folder with one sub-folder for each dataset; empty: Sluice's own, where the code lies."
    )

    @property
    def contracts_root(self) -> Path:
        """Where the contracts lie on this machine."""
        return self.contracts_folder or CONTRACTS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> PipelineSettings:
        """Read the settings from `environment`.

        Raises:
            SettingsMissing: naming the variables that are missing or wrong.
        """
        given = {
            name: environment[_PREFIX + name.upper()]
            for name in cls.model_fields
            if environment.get(_PREFIX + name.upper(), "") != ""
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = "; ".join(
                f"{_PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False)
            )
            raise SettingsMissing(f"the environment does not configure the pipeline: {wrong}") from error

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, str]) -> PipelineSettings:
        """Read from a stack's outputs what the stack decides; the rest are the defaults.

        Raises:
            SettingsMissing: naming the outputs that it lacks.
        """
        missing = [output for output in OUTPUTS.values() if output not in outputs]
        if missing:
            raise SettingsMissing(f"the stack has no outputs {', '.join(missing)}; is it one of Sluice's?")
        return cls.model_validate({field: outputs[output] for field, output in OUTPUTS.items()})

    @classmethod
    def in_environment(cls, environment: Mapping[str, str] = os.environ) -> bool:
        """Whether the environment means to configure the pipeline."""
        return bool(environment.get(_PREFIX + "PUBLISHED_BUCKET"))
