"""The values that an upload passes from stage to stage. They are immutable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from blocks.object_store import ObjectFacts, ObjectStore
from blocks.settings import PipelineSettings
from blocks.upload_queue import UploadQueue
from flows.pipeline.receipt import Chain, Output, Receipt
from flows.refinery.contract.loading import Contracts
from flows.refinery.contract.model import Contract
from flows.refinery.errors import TerminalError
from lambda_trigger.message import UploadMessage

if TYPE_CHECKING:  # they import pandas, which a command such as `sluice status` does not need
    from flows.refinery.read.path_columns import Folders
    from flows.refinery.read.remote_file import Source
    from flows.refinery.refine import Refined
    from flows.refinery.repair.corrections import Corrections


@dataclass(frozen=True)
class Parts:
    """What an upload needs from the outside world; flows/composition.py builds it."""

    settings: PipelineSettings
    store: ObjectStore
    queue: UploadQueue
    read_contracts: Callable[[], Contracts]  # returns the contracts that apply at present
    keep_contract: Callable[[Contract], None]  # keeps the text of a contract that judged a file

    @property
    def contracts(self) -> Contracts:
        """Return the contracts of all datasets. Raises ContractInvalid if a fault hides which keys one is for."""
        return self.read_contracts()


@dataclass(frozen=True, slots=True)
class TaskLog:
    """Where in CloudWatch Logs a task's log is."""

    group: str
    stream: str


@dataclass(frozen=True)
class TaskIdentity:
    """The drain that started this container, and the ECS task it is; None outside of the chain."""

    execution_arn: str | None = None
    task_arn: str | None = None
    log: TaskLog | None = None
    # the drain relies on this task for what arrives until then (seconds since 1970); 0: for nothing
    stay_until: float = 0.0

    @cached_property
    def name(self) -> str:
        """Return a name that no other task has: the task's id on ECS, else one made up."""
        return (self.task_arn or "").rpartition("/")[2] or uuid4().hex


@dataclass(frozen=True)
class UploadJob:
    """One attempt at one upload."""

    upload: UploadMessage
    # the identifiers of the message, task and flow run that this attempt belongs to
    chain: Chain = field(default_factory=Chain)
    contract: Contract | None = None  # replaces the contract that matches the key
    corrections: Corrections | None = None  # values that a repair puts into some rows, on top of earlier repairs
    by_hand: bool = False  # whether a person started the attempt
    dry_run: bool = False  # whether to stop before anything is written to S3
    log: TaskLog | None = None  # where the process logs, for the links in the UI


@dataclass(frozen=True)
class Fetched:
    """What the stage fetch returns."""

    source: Source  # the object version: a local copy, or the object itself, read by ranges
    work_dir: Path  # for what the other stages write
    facts: ObjectFacts
    contract: Contract  # the contract that judges the file
    corrections: Corrections | None = None  # values that this repair and earlier ones put into some rows
    folders: Folders = ()  # those of the object's key that may become columns


@dataclass(frozen=True)
class Published:
    """What was uploaded; or the receipt of another worker that committed first, when nothing was uploaded."""

    outputs: tuple[Output, ...] = ()
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Outcome:
    """The results of the stages before `record`: all that the receipt needs. A stage that did not run has None."""

    contract: Contract
    earlier: Receipt | None = None  # the receipt of an earlier attempt
    fetched: Fetched | None = None
    refined: Refined | None = None
    published: Published | None = None
    error: TerminalError | None = None  # why the file cannot be published
    seconds: Mapping[str, float] = field(default_factory=dict)  # how long each stage took
