"""Apply a contract's steps to the good rows of a file, in bounded memory if the steps allow it."""

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

MAX_OWN_STEP_BYTES = 4 << 30  # of the frame that a function with @whole_table gets
_ROWS_AT_ONCE = 250_000
_IN_MEMORY_BYTES = 256 << 20  # intermediate rows up to this size stay in memory

Frames = Callable[[], Iterator[pd.DataFrame]]


class StepPipeline:
    """Applies steps to a file's good rows.

    Row-local steps are collected and applied together, partition by partition. Before a step that needs all rows, the
    collected steps are applied and their result is kept.

    Args:
        good: the good rows of a file, as `as_stepped` returns them; iterated once.
        kinds: the contract's type of each column.
        folder: where kept rows are stored.

    Attributes:
        kinds: the columns that are published as dates or times; final once `frames` has yielded its first frame.
        dropped: rows by the step that dropped them.
    """

    def __init__(self, good: Iterator[pd.DataFrame], kinds: Mapping[str, str], folder: Path) -> None:
        self.kinds = {name: kind for name, kind in kinds.items() if kind in ("date", "time")}
        self.dropped: Counter[str] = Counter()
        self._source: Frames = lambda: good
        self._waiting: list[Step | OwnStep] = []
        self._folder = folder
        self._spools: list[Spool] = []
        self._has_own = False
        self._after_own: set[str] = set()  # the labels of steps after a dataset's own one

    def add(self, step: Step | OwnStep) -> None:
        """Add a step at the end. If it needs all rows, run the collected steps, and fit or run it, now."""
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
        """Yield the rows after all steps. Call this only once: it counts the rows that the steps drop."""
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
        """Apply the collected steps to some rows. Return None if no row is left for a custom function. If `is_only`, no
        other rows follow: then the function runs on an empty table, to show its columns."""
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
        """Raise StepFailed if a built-in step cannot use the values that a custom function before it returned."""
        try:
            yield
        except (TypeError, ValueError, pa.ArrowException) as error:
            if step.label not in self._after_own:
                raise
            raise StepFailed(
                f"step {step.label} cannot use what a custom step before it returned: {type(error).__name__}; return"
                " texts, numbers, booleans or timestamps there"
            ) from None

    def _keep(self, step: Step, look: Callable[[pd.DataFrame], None]) -> None:
        """Run the collected steps; pass each frame that they return to `look`, and keep it."""
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
                    f"step {step.label} gets all rows at once, and they take more than {MAX_OWN_STEP_BYTES >> 30} GiB"
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
    """Frames that are read again later: in memory up to a total size, then on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._in_memory: list[pd.DataFrame] = []
        self._bytes = 0
        self._paths: list[Path] = []

    def append(self, frame: pd.DataFrame) -> None:
        """Add a frame at the end."""
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
        """Yield the frames in order. More than one call is allowed."""
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
