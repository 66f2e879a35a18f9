"""Apply a contract's steps to the good rows of a file. Memory stays bounded unless a step needs the whole table, or the
median of a column."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa

from flows.refinery.preprocess.own_steps import OwnStep
from flows.refinery.preprocess.step_base import FittedStep, Step, StepFailed, require_a_column
from flows.refinery.preprocess.table_steps import DropDuplicates
from flows.refinery.validate.aggregates import hashes_of
from flows.refinery.validate.uniqueness import HashCollector

MAX_OWN_STEP_BYTES = 4 << 30  # the largest frame that a function with @whole_table may get
_ROWS_AT_ONCE = 250_000
_IN_MEMORY_BYTES = 256 << 20  # intermediate rows up to this size stay in memory

Frames = Callable[[], Iterator[pd.DataFrame]]


class StepPipeline:
    """Applies a contract's steps to a file's good rows.

    Steps that do not need all rows are collected, and then applied together, one partition at a time. When a step that
    needs all rows is added, the collected steps are applied first, and their result is stored.

    Args:
        good: the good rows of a file, in the form that `as_stepped` returns. They are iterated once.
        kinds: the type of each column in the contract.
        folder: where intermediate rows are stored.

    Attributes:
        kinds: the columns that are published as dates or times, each with "date" or "time". It is final once `frames`
            has yielded its first frame.
        dropped: the number of rows that each step dropped, by the step's label.
    """

    def __init__(self, good: Iterator[pd.DataFrame], kinds: Mapping[str, str], folder: Path) -> None:
        self.kinds = {name: kind for name, kind in kinds.items() if kind in ("date", "time")}
        self.dropped: Counter[str] = Counter()
        self._source: Frames = lambda: good
        self._waiting: list[Step | OwnStep] = []
        self._folder = folder
        self._spools: list[Spool] = []
        self._has_own = False
        self._after_own: set[str] = set()  # the labels of the steps that follow a custom step

    def add(self, step: Step | OwnStep) -> None:
        """Add a step at the end. If it needs all rows, it immediately gets the result of the collected steps."""
        if self._has_own:
            self._after_own.add(step.label)
        self._has_own |= isinstance(step, OwnStep)
        if isinstance(step, OwnStep) and step.needs_whole_table:
            self._run_on_whole_table(step)
            return
        if isinstance(step, DropDuplicates):
            collector = HashCollector(self._folder / f"hashes-of-steps-{len(self._spools)}")
            self._keep(step, lambda frame: collector.add(hashes_of(step.keys(frame))))
            with self._naming(step):
                step.find(self._source, collector)
        elif isinstance(step, FittedStep) and not step.is_fitted:
            self._keep(step, step.learn)
            with self._naming(step):
                step.finish()
        self._waiting.append(step)

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the rows that all steps together return. Call this only once, because each call adds to `dropped`."""
        given, without_rows = False, None
        for before in self._source():
            frame = self._stepped(before, is_first=not given)
            if frame is not None:
                yield frame
                given = True
            elif without_rows is None:
                without_rows = before.iloc[:0]
        if not given and without_rows is not None:
            frame = self._stepped(without_rows, is_first=True, is_only=True)
            assert frame is not None  # noqa: S101 for the type checker
            yield frame

    def _stepped(self, frame: pd.DataFrame, *, is_first: bool, is_only: bool = False) -> pd.DataFrame | None:
        """Apply the collected steps to some rows. Return None if no row is left when a custom function is to run. With
        `is_only`, which means that the file has no other rows, the function runs on an empty table instead, because its
        result shows which columns to publish."""
        kinds = dict(self.kinds)
        for step in self._waiting:
            before = frame
            if isinstance(step, OwnStep):
                if not len(before) and not is_only:
                    return None
                frame = step.apply(before)
                kinds = step.kinds_after(kinds, frame)
            else:
                kinds = step.kinds_after(kinds, list(frame.columns)) if is_first else kinds
                with self._naming(step):
                    frame = step.apply(before)
            require_a_column(step.label, before, frame)
            self.dropped[step.label] += len(before) - len(frame)
            kinds = {name: kind for name, kind in kinds.items() if name in frame.columns}
        if is_first:
            self._follow_kinds(kinds)
        return frame

    def close(self) -> None:
        """Delete the files with intermediate rows."""
        for spool in self._spools:
            spool.close()

    @contextmanager
    def _naming(self, step: Step) -> Iterator[None]:
        """Turn an error in a built-in step after a custom function into StepFailed, because that function returned
        values that the step cannot use."""
        try:
            yield
        except (TypeError, ValueError, pa.ArrowException) as error:
            if step.label not in self._after_own:
                raise
            raise StepFailed(
                f"step {step.label} cannot use the values of an earlier custom step: {type(error).__name__}; return"
                " strings, numbers, booleans or timestamps from that step"
            ) from None

    def _keep(self, step: Step, look: Callable[[pd.DataFrame], None]) -> None:
        """Apply the collected steps, pass each resulting frame to `look`, and store it for the steps that follow."""
        spool = Spool(self._folder / f"steps-{len(self._spools)}")
        for frame in self.frames():
            with self._naming(step):
                look(frame)
            spool.append(frame)
        for earlier in self._spools:
            earlier.close()
        self._spools.append(spool)
        self._waiting = []
        self._source = spool.frames

    def _run_on_whole_table(self, step: OwnStep) -> None:
        frames, size = [], 0
        for frame in self.frames():
            frames.append(frame)
            size += int(frame.memory_usage(deep=False).sum())
            if size > MAX_OWN_STEP_BYTES:
                raise StepFailed(
                    f"step {step.label} gets all rows at once, and they need more than {MAX_OWN_STEP_BYTES >> 30} GiB"
                )
        entire = pd.concat(frames)
        frames.clear()
        result = step.apply(entire)
        require_a_column(step.label, entire, result)
        self.dropped[step.label] += len(entire) - len(result)
        del entire
        self._waiting = []
        starts = range(0, max(1, len(result)), _ROWS_AT_ONCE)
        self._source = lambda: (result.iloc[start : start + _ROWS_AT_ONCE] for start in starts)
        self._follow_kinds(step.kinds_after(self.kinds, result))

    def _follow_kinds(self, kinds: Mapping[str, str]) -> None:
        self.kinds.clear()
        self.kinds.update(kinds)


class Spool:
    """Stores frames that are read later. They stay in memory up to a total size; further frames are written to disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._in_memory: list[pd.DataFrame] = []
        self._bytes = 0
        self._paths: list[Path] = []

    def append(self, frame: pd.DataFrame) -> None:
        self._bytes += int(frame.memory_usage(deep=False).sum())
        if not self._paths and self._bytes <= _IN_MEMORY_BYTES:
            self._in_memory.append(frame)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self._paths):06d}.arrow"
        table = pa.Table.from_pandas(frame)
        with pa.ipc.new_file(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(table)
        self._paths.append(path)

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the frames in the order in which they were added. May be called more than once."""
        yield from self._in_memory
        for path in self._paths:
            with pa.OSFile(str(path)) as file:
                yield pa.ipc.open_file(file).read_all().to_pandas()

    def close(self) -> None:
        """Delete the frames."""
        self._in_memory.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()
