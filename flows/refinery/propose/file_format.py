"""Find the format options that are needed to read a sample file but cannot be detected in it, by trying several."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from python_calamine import CalamineWorkbook

from flows.refinery.contract.model import DEFAULT_DATASET, Contract, FileFormat
from flows.refinery.errors import FileRejected
from flows.refinery.read.byte_source import HEAD_BYTES, open_bytes
from flows.refinery.read.csv_dialect import RARE_DELIMITERS, dialect_of, sample_records
from flows.refinery.read.formats import read_partitions
from flows.refinery.read.partition import Limits, Partition
from flows.refinery.read.rejections import (
    EmptyFile,
    EncodingUnknown,
    HeaderInvalid,
    JsonNotRows,
    MarksContradict,
    NoTable,
    QuoteMisplaced,
    SheetMissing,
    SheetNotChosen,
    UnclosedQuote,
)
from flows.refinery.read.text_source import TextSource

_TRIED_ROWS = 5_000
_MAX_LINES_BEFORE_HEADER = 30
_MAX_SHEETS = 10
_VALUE = re.compile(r"[+-]?[0-9][0-9.,:/ TZ+-]*")
_SINGLE_QUOTED = re.compile(r"(?:^|[,;\t|])'[^'\n]*'(?:$|[,;\t|\r])", re.MULTILINE)
_DOUBLE_QUOTED = re.compile(r'(?:^|[,;\t|])"[^"\n]*"(?:$|[,;\t|\r])', re.MULTILINE)
_NO_QUOTE = "\x01"
_FIRST_COLUMN = "row_name"


@dataclass(frozen=True)
class FoundFormat:
    """The options with which a sample file can be read."""

    options: Mapping[str, Any]  # for `format` in the contract, without those that are detected in the file
    columns: tuple[str, ...] | None = None  # the names of all columns; None if the file contains them
    doubt: str = ""  # why the file might not be a table, if no option helps


@dataclass(frozen=True)
class _Trial:
    """The result of reading the beginning of a sample file with certain options."""

    options: Mapping[str, Any]
    columns: tuple[str, ...] | None = None
    partition: Partition | None = None  # the file's first rows; None if the file is rejected
    error: FileRejected | None = None  # why the file is rejected

    @property
    def decoded(self) -> int:
        return len(self.partition.frame) if self.partition is not None else -1

    @property
    def fits(self) -> bool:
        """Return whether there are rows, and all of them can be decoded."""
        return self.partition is not None and not self.partition.misfits and self.decoded > 0

    @property
    def fits_badly(self) -> bool:
        """Return whether the file is rejected or most rows cannot be decoded. The header may then be elsewhere."""
        return self.partition is None or len(self.partition.misfits) > self.decoded


def find_format(path: Path) -> FoundFormat:
    """Find the options that decode the most rows at the beginning of a sample file; none are needed if detection alone
    decodes all of them. If the file is probably not a table, return its options with the reason as `doubt`.

    Raises:
        FileRejected: the file cannot be read with any of the options that are tried.
    """
    plain = _tried(path, {})
    if isinstance(plain.error, EncodingUnknown):
        plain = _tried(path, {"encoding": plain.error.candidates[0]})
    if isinstance(plain.error, SheetNotChosen):
        plain = _first_sheet_with_rows(path, plain)
    if plain.fits and not _looks_quoted(plain):
        return FoundFormat(plain.options)
    best = _best_of(path, plain)
    if best.partition is not None:
        return FoundFormat(best.options, best.columns)
    if isinstance(plain.error, NoTable):
        return FoundFormat(plain.options, doubt=str(plain.error))
    raise plain.error or FileRejected("no row can be decoded")


def _best_of(path: Path, plain: _Trial) -> _Trial:
    best = plain
    for options, columns in _alternatives(path, plain):
        if columns and _has_header(best):
            break
        trial = _tried(path, {**plain.options, **options}, columns)
        if "skip_lines" in options and not columns and not _skips_only_lines_above(path, trial):
            continue
        if trial.fits_badly or (columns and not trial.fits):
            continue
        if trial.decoded > best.decoded or (trial.fits and _looks_quoted(best) and trial.decoded == best.decoded):
            best = trial
    return best


def _has_header(trial: _Trial) -> bool:
    """Return whether a trial found a header: all rows can be decoded, and no column name looks like a value."""
    return trial.partition is not None and trial.fits and not any(map(_VALUE.fullmatch, trial.partition.frame.columns))


def read_sample(path: Path, found: FoundFormat, columns: Mapping[str, Any]) -> Iterator[Partition]:
    """Read a sample with the options that were found. `columns` declares columns as in a contract."""
    names = dict.fromkeys(found.columns or (), "string")
    fields = {"dataset": "sample", "columns": {**names, **columns}, "format": dict(found.options)}
    return read_partitions(path, Contract.model_validate(fields))


def _tried(path: Path, options: Mapping[str, Any], columns: Sequence[str] | None = None) -> _Trial:
    """Read the beginning of a sample. Without `columns`, read it for the default dataset, which requires a plausible
    header."""
    declared = dict.fromkeys(columns or (), "string")
    dataset = "sample" if columns else DEFAULT_DATASET
    contract = Contract.model_validate({"dataset": dataset, "columns": declared, "format": dict(options)})
    names = tuple(columns) if columns else None
    try:
        partition = next(read_partitions(path, contract, rows_per_partition=_TRIED_ROWS))
    except FileRejected as error:
        return _Trial(options, names, error=error)
    return _Trial(options, names, partition)


def _first_sheet_with_rows(path: Path, plain: _Trial) -> _Trial:
    trials = (_tried(path, {**plain.options, "sheet": sheet}) for sheet in range(1, _MAX_SHEETS))
    return next((trial for trial in trials if not isinstance(trial.error, EmptyFile | SheetMissing)), plain)


def _alternatives(path: Path, plain: _Trial) -> Iterator[tuple[dict[str, Any], tuple[str, ...] | None]]:
    """Yield options that may help, most likely first, each with the column names to use if the file has no header."""
    if isinstance(plain.error, JsonNotRows) and plain.error.records_path:
        yield {"records_path": plain.error.records_path}, None
    if isinstance(plain.error, MarksContradict):
        yield from (({"decimal": mark}, None) for mark in ".,")
    text = _beginning(path, plain.options.get("encoding"))
    written: list[dict[str, Any]] = []
    if '\\"' in text:
        written.append({"escape": "\\"})
    if isinstance(plain.error, UnclosedQuote | QuoteMisplaced) and not _DOUBLE_QUOTED.search(text):
        written.append({"quote": _NO_QUOTE})
    if _SINGLE_QUOTED.search(text) and not _DOUBLE_QUOTED.search(text):
        written += [{"quote": "'"}, {"quote": "'", "escape": "\\"}] if "\\'" in text else [{"quote": "'"}]
    if plain.fits_badly:
        written.append({"trailing_delimiter": True})
        written += [{"delimiter": delimiter} for delimiter in RARE_DELIMITERS if delimiter in text]
        written += [{"skip_lines": lines} for lines in range(1, _MAX_LINES_BEFORE_HEADER + 1)]
    yield from ((options, None) for options in written if _is_known(options))
    if plain.fits_badly:
        yield from _without_header(path, plain)


def _without_header(path: Path, plain: _Trial) -> Iterator[tuple[dict[str, Any], tuple[str, ...] | None]]:
    """Yield options and column names for a file without a header, or with R's header, which does not name the column
    of row names."""
    names = _names_of_any_table(path, plain)
    if names and _VALUE.fullmatch(names[0]):
        yield {"header": False}, tuple(f"column_{place}" for place in range(1, len(names) + 1))
    elif names:
        yield {"skip_lines": 1, "header": False}, (_FIRST_COLUMN, *names)
    elif isinstance(plain.error, HeaderInvalid):
        text = _beginning(path, plain.options.get("encoding"))
        contract = Contract.model_validate({"dataset": "sample", "format": dict(plain.options)})
        records = sample_records(text, dialect_of(text, contract).delimiter, contract.format)
        first, *others = records[0].fields if records else ["?"]
        if not first.strip() and all(map(str.strip, others)) and len(set(others)) == len(others):
            yield {"skip_lines": 1, "header": False}, (_FIRST_COLUMN, *others)


def _names_of_any_table(path: Path, plain: _Trial) -> list[str]:
    try:
        return list(map(str, next(read_sample(path, FoundFormat(plain.options), {})).frame.columns))
    except FileRejected:
        return []


def _looks_quoted(trial: _Trial) -> bool:
    """Return whether there is a column in which all values are in single quotes."""
    if trial.partition is None or trial.partition.source_format.type != "csv" or "quote" in trial.options:
        return False
    texts = (trial.partition.frame[name].dropna() for name in trial.partition.frame.columns)
    return any(
        len(column) and all(isinstance(text, str) and re.fullmatch("'.*'", text, re.DOTALL) for text in column)
        for column in texts
    )


def _skips_only_lines_above(path: Path, trial: _Trial) -> bool:
    """Return whether all lines that a trial skips have fewer values than the header. A line with as many values is
    itself a header or a row."""
    if trial.partition is None:
        return False
    found = trial.partition.source_format
    if found.type == "xlsx":
        sheet = CalamineWorkbook.from_path(path).get_sheet_by_name(found.sheet or "")
        lines = sheet.to_python(skip_empty_area=False, nrows=_MAX_LINES_BEFORE_HEADER)
    else:
        text = _beginning(path, trial.options.get("encoding"))
        lines = [line.split(found.delimiter or ",") for line in text.split("\n")]
    widths = [sum(str(value).strip() != "" for value in line) for line in lines]
    return all(width < len(trial.partition.frame.columns) for width in widths[: trial.options["skip_lines"]])


def _beginning(path: Path, encoding: str | None) -> str:
    try:
        with open_bytes(path, Limits()) as source:
            return TextSource(source, encoding).read(HEAD_BYTES).decode("utf-8", errors="replace")
    except FileRejected:
        return ""


def _is_known(options: Mapping[str, Any]) -> bool:
    try:
        FileFormat.model_validate(options)
    except ValidationError:
        return False
    return True
