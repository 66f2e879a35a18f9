"""The stages of one upload, as plain functions: they work with Prefect watching, and without it."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from blocks.object_store import ObjectFacts
from flows import __version__
from flows.composition import Pipeline
from flows.pipeline.data_docs import list_page, publish_page
from flows.pipeline.json_log import lines_about, place_of
from flows.pipeline.protocol import ReceiptConflict, Start, decide_start
from flows.pipeline.receipt import Chain, ContractUsed, Output, Receipt, Rows, Source, Status, output_stem
from flows.pipeline.time_limit import TimeIsUp, time_limit
from flows.refinery.checks import Check, RejectionReason
from flows.refinery.contract.loading import ContractInvalid
from flows.refinery.contract.model import Contract
from flows.refinery.errors import FileRejected, SluiceError, TerminalError, TransientError
from flows.refinery.preprocess.step_base import StepFailed
from flows.refinery.refine import JudgedFile, Refined, judge_file, preprocess_file
from flows.refinery.repair.corrections import Corrections, read_corrections
from flows.refinery.write.outputs import OutputFile, output_file
from lambda_trigger.message import UploadMessage, folder_of

LOG = logging.getLogger("sluice")
_T = TypeVar("_T")

REJECTING = (FileRejected, ContractInvalid, StepFailed)
"""What a stage may raise to say that this file cannot be published. Anything else is not the file's fault."""

_TRIES_IN_TIME = 2  # a stage may run out of time once; then it is the file's fault, or its contract's

CORRECTIONS = "corrections"
"""The kind of output that holds what repairs put into some rows."""

Progress = Callable[[str, int], None]
"""Called with a stage's name and the rows that it has done so far."""


class StageBroke(TransientError):
    """A stage failed in a way that nobody foresaw: a fault of Sluice, or the machine ran out of something.

    The message names the exception's type and place, never its text, which may quote data. The upload stays in
    the queue and is tried again; after the queue's limit it rests in the dead-letter queue.
    """


class OutOfMemory(TransientError):
    """A stage asked for more memory than there is: the task's fault, not the file's.

    The upload stays in the queue and is tried again; after the queue's limit it rests in the dead-letter queue, from
    which a task with more memory can take it.
    """


class StageTookTooLong(TransientError):
    """Validating or preprocessing took longer than `stage_timeout_seconds`, for the first time with this upload.

    The machine may have been busy, so the message goes back and the upload is tried once more.
    """


class TakesTooLong(FileRejected):
    """Validating or preprocessing took longer than `stage_timeout_seconds` twice: a step of the dataset's own may never
    end, or the file is too large for the task."""

    code = "takes_too_long"


class RepairRejected(TerminalError):
    """With the corrected rows the file would be rejected. Nothing was changed: the receipt that was there stands."""


class UploadRun:
    """One attempt at one upload. Call the stages in their order; `run` does that without Prefect.

    A stage that finds the file unusable raises a TerminalError; hand that to `reject`. What a stage may say about
    passing trouble is a TransientError: nothing is committed then, and all of it can be done again.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        upload: UploadMessage,
        *,
        contract: Contract | None = None,
        chain: Chain | None = None,
        on_progress: Progress | None = None,
        corrections: Corrections | None = None,
    ) -> None:
        """Args:
        contract: the contract to use instead of the one that the key belongs to.
        corrections: what a repair puts into some rows; those of earlier repairs are put in by themselves.
        chain: the identifiers of the message, task and flow run that this attempt belongs to.
        """
        self.pipeline = pipeline
        self.upload = upload
        self.chain = chain or Chain()
        self.receipt: Receipt | None = None
        self._on_progress = on_progress
        self._folder = tempfile.TemporaryDirectory(prefix="sluice-")
        self._timings: dict[str, float] = {}
        self._facts: ObjectFacts | None = None
        self._contract = contract
        self._new_corrections = corrections
        self._corrections: Corrections | None = None
        self._standing: Receipt | None = None
        self._validated: JudgedFile | None = None
        self._prepared: Refined | None = None
        self._outputs: tuple[Output, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    # --- the stages -------------------------------------------------------------------------------------------

    def find_receipt(self) -> Receipt | None:
        """Return the receipt that makes this attempt superfluous, or None when there is work to do.

        Raises:
            ReceiptConflict: this is a repair, and somebody else's result stands already under its number.
        """
        existing = self._standing = self.pipeline.store.receipt(self.upload.run_id)
        if decide_start(existing, self.upload.attempt) is Start.WORK:
            return None
        if self._new_corrections:
            raise self._without_corrections()
        self.receipt = existing
        return existing

    def fetch(self) -> ObjectFacts:
        """Read the object version into a local file, and find its contract and the corrections of its rows."""
        with self._stage("fetch"):
            self._facts = self.pipeline.store.fetch(self.upload, self.source)
            self._contract = self._contract or self._find_contract()
            self._corrections = self._all_corrections()
            return self._facts

    def validate(self) -> JudgedFile:
        """Decode the file, judge every row, part good from bad."""
        with self._stage("validate", self.pipeline.settings.stage_timeout_seconds):
            self._validated = judge_file(
                self.source,
                self.contract,
                self._work_dir,
                corrections=self._corrections,
                on_progress=self._progress_of("validate"),
            )
            return self._validated

    def refine(self) -> Refined:
        """Preprocess the good rows into the files that will be published."""
        with self._stage("refine", self.pipeline.settings.stage_timeout_seconds):
            self._prepared = preprocess_file(
                self._need(self._validated), self.contract, self._work_dir, on_progress=self._progress_of("refine")
            )
            return self._prepared

    def publish(self) -> tuple[Output, ...]:
        """Write the outputs under keys of this run. Nobody trusts them before the receipt is there."""
        with self._stage("publish"):
            if self.find_receipt():
                return ()  # another worker was faster: what is written now would only have to be deleted again
            prepared = self._need(self._prepared)
            self._outputs = ()
            for file in prepared.outputs:
                self._outputs += (self._publish_file("data", file),)
            if prepared.quarantine:
                self._outputs += (self._publish_file("quarantine", prepared.quarantine),)
            if prepared.fitted:
                self._outputs += (self._publish_file("fitted", self._fitted_file(prepared.fitted), under="data"),)
            if self._corrections:
                file = self._corrections_file(self._corrections)
                self._outputs += (self._publish_file(CORRECTIONS, file, under="quarantine"),)
            return self._outputs

    def record(self) -> Receipt:
        """Commit the receipt of a published or rejected file, then bring the index up to date."""
        return self._commit(self.rejections)

    def reject(self, error: TerminalError) -> Receipt:
        """Commit the receipt of a file that a stage found unusable."""
        return self._commit(_reasons_of(error))

    def preview(self, error: TerminalError | None = None) -> Receipt:
        """Return the receipt that `record`, or `reject`, would commit, and commit nothing."""
        return self._receipt(_reasons_of(error) if error else self.rejections)

    def run(self) -> Receipt:
        """Do all stages, without Prefect."""
        existing = self.find_receipt()
        if existing:
            self.settle(existing)
            return existing
        try:
            self.fetch()
            if not self.validate().rejected:
                self.refine()
                self.publish()
        except REJECTING as error:
            return self.reject(error)
        return self.record()

    def settle(self, receipt: Receipt) -> None:
        """Bring the index up to date with a receipt that was there already; a worker may have died between the two,
        or before the commit and after it had written something else."""
        self._settle(receipt)
        folders = {output.key.rsplit("/", 1)[0] + "/" for output in self._outputs if output.is_retirable}
        self.pipeline.store.delete_leftovers(receipt, {*self._areas_of(receipt), *folders})

    def _areas_of(self, receipt: Receipt) -> set[str]:
        """Where workers at the object version of `receipt` may have written: a run by hand may be judged by another
        contract than the one that the key belongs to, or the attempt before."""
        contracts = [self.contract, self._find_contract(), *(self.pipeline.contracts if receipt.attempt > 0 else ())]
        return {f"data/{self._area_under(contract)}/" for contract in contracts}

    @property
    def rejections(self) -> tuple[RejectionReason, ...]:
        """Why validation rejected the file; empty when it accepted it."""
        return self._need(self._validated).rejected

    @property
    def contract(self) -> Contract:
        """The contract that judges this file."""
        return self._need(self._contract)

    @property
    def rows_corrected(self) -> int:
        """How many rows stand as a repair, this one or an earlier one, says."""
        return len(self._corrections.rows) if self._corrections else 0

    # --- helpers ----------------------------------------------------------------------------------------------

    def _find_contract(self) -> Contract:
        return self.pipeline.contracts.for_key(self.upload.key)

    def _all_corrections(self) -> Corrections | None:
        """The corrections that the standing receipt names, and on top of them those that are new."""
        corrections = None
        for place, output in enumerate(self._kept_corrections):
            path = self._work_dir / f"corrections-{place}.parquet"
            self.pipeline.store.fetch_output(output.key, path)
            earlier = read_corrections(path)
            corrections = earlier.over(corrections) if corrections else earlier
        if self._new_corrections is None:
            return corrections
        return self._new_corrections.over(corrections) if corrections else self._new_corrections

    @property
    def _kept_corrections(self) -> tuple[Output, ...]:
        outputs = self._standing.outputs if self._standing else ()
        return tuple(output for output in outputs if output.kind == CORRECTIONS)

    def _corrections_file(self, corrections: Corrections) -> OutputFile:
        """What a later attempt at the same object version starts from."""
        path = self._work_dir / "corrections.parquet"
        corrections.write(path)
        return output_file(path, "", len(corrections.rows), ".corrections.parquet")

    def _fitted_file(self, fitted: dict[str, Any]) -> OutputFile:
        """What the steps learned, beside the rows: readers of data folders pass over names with _ in front."""
        path = self._work_dir / "fitted.json"
        path.write_text(json.dumps(fitted, sort_keys=True, indent=1))
        return output_file(path, "_fitted/", 0, ".json")

    def _publish_file(self, kind: str, file: OutputFile, *, under: str = "") -> Output:
        folder = f"{under or kind}/{self._area_under(self.contract)}/{file.folder}"
        key = f"{folder}{output_stem(self.upload, file.sha256)}{file.extension}"
        self.pipeline.store.put_file(key, file.path, sha256=file.sha256)
        return Output(kind=kind, key=key, rows=file.rows, size_bytes=file.size_bytes, sha256=file.sha256)

    def _area_under(self, contract: Contract) -> str:
        """Where under data/ and quarantine/ this run's outputs lie. Files under no contract of their own are kept
        apart by the folder that they were dropped into, as they need not look alike."""
        if not contract.is_default:
            return contract.dataset
        folder = folder_of(self.upload.key, self.pipeline.settings.incoming_prefix)
        return f"{contract.dataset}/{folder}" if folder else contract.dataset

    def _commit(self, reasons: tuple[RejectionReason, ...]) -> Receipt:
        if reasons and self._new_corrections:
            raise RepairRejected("; ".join(reason.message for reason in reasons))
        with self._stage("record"):
            if self.receipt:  # found while publishing
                self.settle(self.receipt)
                return self.receipt
            ours = self._receipt(reasons)
            ours = ours.model_copy(update={"docs_page": publish_page(self.pipeline.store, ours)})
            try:
                receipt = self.receipt = self.pipeline.store.commit(ours)
                if self._new_corrections and receipt.attempt > ours.attempt:
                    raise self._without_corrections()
            except ReceiptConflict:
                # Its worker may have died before it could settle, and this one's message is deleted next.
                standing = self.pipeline.store.receipt(self.upload.run_id)
                if standing:
                    self.settle(standing)
                raise
            # Only a worker before this one can have left something behind: most uploads need no look.
            if receipt is ours and ours.attempt == 0 and self.chain.receive_count == 1:
                self._settle(receipt)
            else:
                self.settle(receipt)
            list_page(self.pipeline.store, receipt)
            return receipt

    def _without_corrections(self) -> ReceiptConflict:
        return ReceiptConflict(
            f"run {self.upload.run_id} was processed again in the meantime, without these corrections; "
            "its receipt stands. Look at its quarantine, and repair that"
        )

    def _settle(self, receipt: Receipt) -> None:
        contracts = self.pipeline.contracts
        self._contract = self._contract or self._contract_named(receipt.contract.dataset) or self._find_contract()
        datasets = [contract.dataset for contract in contracts]
        self.pipeline.store.settle(receipt, replaces=self._replaces, datasets=datasets)

    def _replaces(self, dataset: str) -> bool:
        """Whether a re-upload replaces what a dataset holds of its key. The receipt that stands may be of another
        dataset than this run's."""
        own = self._contract is not None and self._contract.dataset == dataset
        contract = self.contract if own else self._contract_named(dataset)
        return contract is not None and contract.on_reupload == "replace"

    def _contract_named(self, dataset: str) -> Contract | None:
        """The contract of a dataset that a receipt names; None when this release has it no longer."""
        return next((contract for contract in self.pipeline.contracts if contract.dataset == dataset), None)

    def _receipt(self, reasons: tuple[RejectionReason, ...]) -> Receipt:
        rows = self._rows(rejected=bool(reasons))
        if not rows.balanced:
            raise StageBroke(
                f"run {self.upload.run_id}: {rows.rows_in} rows came in, but {rows.published} + "
                f"{rows.quarantined_total} + {rows.dropped_total} are accounted for; nothing was committed"
            )
        return Receipt(
            status=Status.REJECTED if reasons else Status.PUBLISHED,
            run_id=self.upload.run_id,
            attempt=self.upload.attempt,
            source=self._source_facts(),
            contract=self._contract_used(),
            rows=rows,
            outputs=self._kept_corrections if reasons else self._outputs,
            checks=self._checks(),
            reasons=reasons,
            fitted=self._prepared.fitted if self._prepared and not reasons else {},
            observed=self.chain.flow_run_id is not None,
            code_version=__version__,
            timings_seconds={stage: round(seconds, 3) for stage, seconds in self._timings.items()},
            chain=self.chain,
            created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        )

    def _rows(self, *, rejected: bool) -> Rows:
        if self._validated is None:
            return Rows(rows_in=0, published=0)
        rows_in = self._validated.rows_in
        if rejected or self._prepared is None:
            return Rows(rows_in=rows_in, published=0, dropped={"file_rejected": rows_in} if rows_in else {})
        return Rows(
            rows_in=rows_in,
            published=self._prepared.rows_published,
            quarantined=dict(self._validated.quarantined),
            dropped=dict(self._prepared.dropped),
        )

    def _source_facts(self) -> Source:
        upload, facts = self.upload, self._facts
        return Source(
            bucket=upload.bucket,
            key=upload.key,
            version_id=upload.version_id,
            etag=upload.etag,
            size_bytes=upload.size_bytes,
            sequencer=upload.sequencer,
            last_modified=facts.last_modified if facts else upload.event_time,
        )

    def _contract_used(self) -> ContractUsed:
        contract = self._contract or self._find_contract()
        self._contract = contract
        return ContractUsed(
            dataset=contract.dataset, content_hash=contract.content_hash, is_default=contract.is_default
        )

    def _checks(self) -> tuple[Check, ...]:
        return self._validated.checks if self._validated else ()

    @property
    def _work_dir(self) -> Path:
        return Path(self._folder.name)

    @property
    def source(self) -> Path:
        """The local copy of the object version; there once it was fetched."""
        return self._work_dir / "source"

    def _progress_of(self, stage: str) -> Callable[[str, int], None] | None:
        if self._on_progress is None:
            return None
        report = self._on_progress
        return lambda _part, rows: report(stage, rows)

    @contextmanager
    def _stage(self, name: str, limit_seconds: float | None = None) -> Iterator[None]:
        started = time.monotonic()
        failed: str | None = None
        try:
            dataset = self._contract.dataset if self._contract else None
            with lines_about(run_id=self.upload.run_id, dataset=dataset, stage=name), time_limit(limit_seconds):
                yield
        except TimeIsUp:
            failed = "TimeIsUp"
            raise self._too_long(name, limit_seconds) from None
        except SluiceError as error:
            failed = type(error).__name__
            raise
        except MemoryError as error:
            failed = type(error).__name__
            raise OutOfMemory(
                f"stage {name} ran out of memory ({_place_of(error)}). A step of the dataset's own gets all rows at "
                "once; give the task more memory (the stack's parameter TaskMemory) and redrive the dead-letter queue"
            ) from None
        except Exception as error:  # noqa: BLE001 (whatever it is, it becomes an error that quotes no data)
            failed = type(error).__name__
            raise StageBroke(f"stage {name}: {_place_of(error)}") from None
        finally:
            seconds = self._timings[name] = time.monotonic() - started
            self._log_stage(name, seconds, failed)

    def _too_long(self, stage: str, limit_seconds: float | None) -> SluiceError:
        took = f"the stage {stage} was not done after {limit_seconds:,.0f} s (SLUICE_STAGE_TIMEOUT_SECONDS)"
        if (self.chain.receive_count or 1) < _TRIES_IN_TIME:
            return StageTookTooLong(f"{took}; trying once more")
        return TakesTooLong(
            f"{took}, and not for the first time. A step of the dataset's own that never ends does that, or a file "
            "that is too large for the task: mend the step, or give the task more time and CPU, and upload it again"
        )

    def _log_stage(self, stage: str, seconds: float, failed: str | None) -> None:
        fields: dict[str, Any] = {
            "run_id": self.upload.run_id,
            "dataset": self._contract.dataset if self._contract else None,
            "stage": stage,
            "seconds": round(seconds, 3),
        }
        if failed:
            fields["error"] = failed
        LOG.info("stage failed" if failed else "stage done", extra={"fields": fields})

    @staticmethod
    def _need(value: _T | None) -> _T:
        if value is None:
            raise StageBroke("a stage was called before the one that it builds on")
        return value


def _reasons_of(error: TerminalError) -> tuple[RejectionReason, ...]:
    return (RejectionReason(code=code_of(error), message=str(error)),)


def code_of(error: TerminalError) -> str:
    """Return the error's cause as a receipt names it: its `code`, or its class's name in snake_case."""
    code: Any = getattr(error, "code", None)
    return str(code) if code else re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def _place_of(error: Exception) -> str:
    """Return type and place of an exception, without its text: pandas quotes values in what it says."""
    return f"{type(error).__name__} at {place_of(error.__traceback__)}"
