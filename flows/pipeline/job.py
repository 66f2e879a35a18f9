"""The values that the stages of an upload receive and return, and the identity of the task that runs them."""

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
    """The dependencies of upload processing: settings, buckets, queue and contracts (flows/composition.py)."""

    settings: PipelineSettings
    store: ObjectStore
    queue: UploadQueue
    read_contracts: Callable[[], Contracts]  # returns the contracts that currently apply
    keep_contract: Callable[[Contract], None]  # stores the text of a contract that a file was checked against

    @property
    def contracts(self) -> Contracts:
        """Return the current contracts. Raise ContractInvalid if there is no default one, or if it is unknown which
        keys an invalid one applies to."""
        return self.read_contracts()


@dataclass(frozen=True, slots=True)
class TaskLog:
    """The CloudWatch Logs group and stream that a task logs to."""

    group: str
    stream: str


@dataclass(frozen=True)
class TaskIdentity:
    """The ECS task that this process runs in, and the drain execution that launched the task."""

    execution_arn: str | None = None  # None if no drain launched the task
    task_arn: str | None = None  # None outside ECS
    log: TaskLog | None = None
    # the time (seconds since 1970) until which the drain relies on this task to receive new uploads; 0 if it does not
    stay_until: float = 0.0

    @cached_property
    def name(self) -> str:
        """Return a unique name for the task: its ECS task ID, or a random name outside ECS."""
        return (self.task_arn or "").rpartition("/")[2] or uuid4().hex


@dataclass(frozen=True)
class UploadJob:
    """One attempt to process one upload."""

    upload: UploadMessage
    # the identifiers of the message, task and flow run that this attempt belongs to
    chain: Chain = field(default_factory=Chain)
    contract: Contract | None = None  # replaces the contract that matches the key
    corrections: Corrections | None = None  # this repair's corrected rows; the fetch stage adds earlier ones
    by_hand: bool = False  # whether a person started the attempt
    dry_run: bool = False  # whether to stop before anything is written to S3
    log: TaskLog | None = None  # where the process logs, for the links in Prefect


@dataclass(frozen=True)
class Fetched:
    """The result of the fetch stage."""

    source: Source  # the object version: a local copy, or the object itself, read in ranges
    work_dir: Path  # the folder that the other stages write to
    facts: ObjectFacts
    contract: Contract  # the contract that the file is checked against
    corrections: Corrections | None = None  # the corrected rows of this repair and earlier ones
    folders: Folders = ()  # the folders in the object's key that may become columns


@dataclass(frozen=True)
class Published:
    """The result of the publish stage: the uploaded outputs or, if another worker has already committed, that worker's
    receipt."""

    outputs: tuple[Output, ...] = ()
    receipt: Receipt | None = None


@dataclass(frozen=True)
class Outcome:
    """The information that the receipt is made from. The result of a stage that did not finish or did not run is
    None."""

    contract: Contract
    earlier: Receipt | None = None  # the receipt of an earlier attempt, if there is one
    fetched: Fetched | None = None
    refined: Refined | None = None
    published: Published | None = None
    error: TerminalError | None = None  # the error with which a stage rejected the file, if one did
    seconds: Mapping[str, float] = field(default_factory=dict)  # how long each stage took
