"""Propose a contract from a sample file: rules a little wider than the sample, each with a comment on the evidence.

The proposal is tested on the sample first, and rules that the sample itself breaks are removed.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from flows.refinery.check_contract import check_contract
from flows.refinery.contract.loading import CONTRACT_FILE, load_contract
from flows.refinery.contract.model import Contract, FileFormat
from flows.refinery.errors import FileRejected, TerminalError
from flows.refinery.preprocess.table_steps import clean_name
from flows.refinery.propose.profiling import MAX_DISTINCT, ColumnProfile, FileProfile, profile_file
from flows.refinery.read.partition import Limits
from flows.refinery.refine import JudgedFile, judge_file, preprocess_file
from flows.refinery.validate.coercion import MISSING_RULE, TYPE_RULES

MAX_SET_VALUES = 20
_MIN_ROWS_PER_SET_VALUE = 3
_MAX_SET_TEXT = 60  # characters
_MIN_ROWS_FOR_UNIQUE = 5
_MAX_COMMENT = 160  # characters
_ROUNDS = 12
_EXACT_FLOAT = 2.0**53
_TINY = 1e-9
_KEY_NAME = re.compile(r"(?i)(^|[^a-z])(id|key|uuid|guid|code|sku|isbn|no|nr|number)$|[a-z](Id|ID|Key|Code)$")
_DEFAULT_LIMITS = Limits()


class SampleUnfit(TerminalError):
    """The sample passes no proposed contract. This is a bug in Sluice: a contract without rules should pass."""


class NothingDecoded(FileRejected):
    """`sluice contract new`: no row of the sample can be decoded, so there is nothing to propose from."""


@dataclass(frozen=True)
class ProposedExpectation:
    """One expectation, with a comment on the evidence."""

    name: str
    arguments: Mapping[str, Any]
    comment: str

    @property
    def rule(self) -> str:
        """Return the id of the expectation's rule, as in the checks."""
        column = self.arguments.get("column")
        return f"{self.name}({column})" if column is not None else self.name


@dataclass(frozen=True)
class ProposedColumn:
    """One column as the contract will list it."""

    name: str
    fields: dict[str, Any]
    comment: str


@dataclass(frozen=True)
class Proposal:
    """A contract that its sample passes: the text of contract.yaml, and its result on the sample."""

    text: str
    contract: Contract
    profile: FileProfile
    validated: JudgedFile


def propose_contract(sample: Path, dataset: str, *, limits: Limits = _DEFAULT_LIMITS) -> Proposal:
    """Propose a contract that a sample file passes without quarantined rows, except for those that cannot be decoded.

    Raises:
        FileRejected: the sample cannot be read as a table.
        NothingDecoded: none of its rows can be decoded.
        ContractInvalid: no dataset can have this name.
    """
    profile = profile_file(sample, limits=limits)
    if profile.rows and profile.rows == sum(profile.misfits.values()):
        reasons = ", ".join(f"{reason} ({_count(rows, 'row')})" for reason, rows in sorted(profile.misfits.items()))
        raise NothingDecoded(
            f"no row of {sample.name} can be decoded: {reasons}; give a sample with good rows"
            f" (`sluice contract check default {sample.name}` shows what is wrong)"
        )
    draft = _Draft(
        dataset=dataset,
        sample_name=sample.name,
        profile=profile,
        columns=tuple(map(_column, profile.columns)),
        expectations=tuple(_expectations(profile)),
        cleans_names=any(clean_name(column.name) != column.name for column in profile.columns),
    )
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        work_dir = Path(folder)
        for _ in range(_ROUNDS):
            text = draft.render()
            contract = _loaded(text, dataset, work_dir)
            judged, broken = _try_on(sample, contract, work_dir, limits)
            if not broken:
                return Proposal(text, contract, profile, judged)
            draft = draft.without(broken)
    raise SampleUnfit(f"no contract was found that {sample.name} passes; still broken: {sorted(broken)}")


def _loaded(text: str, dataset: str, work_dir: Path) -> Contract:
    folder = work_dir / dataset if re.fullmatch(r"[\w-]+", dataset) else work_dir / "contract"
    folder.mkdir(exist_ok=True)
    (folder / CONTRACT_FILE).write_text(text, encoding="utf-8")
    contract = load_contract(folder)
    check_contract(contract)
    return contract


def _try_on(sample: Path, contract: Contract, work_dir: Path, limits: Limits) -> tuple[JudgedFile, set[str]]:
    """Judge the sample; return the result, and the rules that it breaks, or `preprocess` when a step fails on it."""
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        judged = judge_file(sample, contract, Path(folder), limits=limits)
        broken = {check.rule for check in judged.checks if not check.success and check.kind != "decode"}
        broken |= {reason.code for reason in judged.rejected}
        if not broken:
            try:
                preprocess_file(judged, contract, Path(folder))
            except TerminalError:
                broken = {"preprocess"}
    return judged, broken


# --- the draft --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draft:
    dataset: str
    sample_name: str
    profile: FileProfile
    columns: tuple[ProposedColumn, ...]
    expectations: tuple[ProposedExpectation, ...]
    max_fraction: float | None = 0.05
    cleans_names: bool = False

    def without(self, broken: set[str]) -> _Draft:
        """Return the draft without the rules that the sample breaks."""
        return replace(
            self,
            columns=tuple(_loosened(column, broken) for column in self.columns),
            expectations=tuple(expectation for expectation in self.expectations if expectation.rule not in broken),
            max_fraction=None if "bad_rows.max_fraction" in broken else self.max_fraction,
            cleans_names=self.cleans_names and "preprocess" not in broken,
        )

    def render(self) -> str:
        """Return the text of contract.yaml."""
        return "\n".join([*self._head(), *self._rules(), *self._tail(), ""])

    def _head(self) -> Iterator[str]:
        profile = self.profile
        yield _comment(
            f"Proposed from the sample {self.sample_name}:"
            f" {_count(profile.rows, 'row')}, {_count(len(self.columns), 'column')}."
        )
        yield "# The comments describe the sample; the rules allow a little more. Edit what you know better."
        for reason, rows in sorted(profile.misfits.items()):
            yield _comment(f"{_count(rows, 'row')} of the sample could not be decoded ({reason}); quarantined.")
        yield f"dataset: {_flow(self.dataset)}"
        yield f"source: [{_flow(f'incoming/{self.dataset}/**')}]"
        fields = _format_fields(profile)
        written = _flow(fields["type"] if len(fields) == 1 else fields)
        found = profile.source_format
        if found.other_sheets:
            others = ", ".join(found.other_sheets)
            yield _comment(f"The sheet {found.sheet} was read. Others, which `sheet` would choose: {others}")
        if profile.found.doubt:
            yield f"# Check this first: {profile.found.doubt}"
        if guessed := [name for name in profile.found.options if name in fields]:
            yield _comment(f"No file can prove {' and '.join(map(_option, guessed))}: check that the values are right.")
        if profile.found.columns:
            yield "# The file does not name its columns: give them their names below, in their order."
        yield f"format: {written}{_remark('; '.join(filter(None, (found.encoding, found.compression))))}"

    def _rules(self) -> Iterator[str]:
        if self.columns:
            yield "columns:"
            for column in self.columns:
                yield f"  {_flow(column.name)}: {_flow(column.fields)}{_remark(column.comment)}"
            yield f"unknown_columns: freeze{_remark('a file with another column is rejected; evolve publishes it too')}"
            yield f"missing_columns: freeze{_remark('a file without one of them is rejected')}"
        if self.expectations:
            yield "expectations:"
        for expectation in self.expectations:
            yield f"  - {expectation.name}: {_flow(expectation.arguments)}{_remark(expectation.comment)}"

    def _tail(self) -> Iterator[str]:
        if self.max_fraction is None:
            yield f"bad_rows: {{policy: quarantine}}{_remark('no limit: the sample has too many undecodable rows')}"
        else:
            limits = {"policy": "quarantine", "max_fraction": self.max_fraction}
            bad = f"{sum(self.profile.misfits.values()):,}" if self.profile.misfits else "no"
            yield f"bad_rows: {_flow(limits)}{_remark(f'a file with more bad rows is rejected; the sample has {bad}')}"
        if self.cleans_names:
            yield "preprocess:"
            yield f"  - clean_column_names{_remark('some names have capitals, spaces or signs')}"
        yield "output: {format: parquet, compression: zstd}"


def _loosened(column: ProposedColumn, broken: set[str]) -> ProposedColumn:
    kind = column.fields["type"]
    fields = dict(column.fields)
    if f"{TYPE_RULES[kind]}({column.name})" in broken:
        # A text that meant a missing number may be an ordinary value here.
        kept = {key: value for key, value in fields.items() if key not in ("format", "missing_values")}
        fields = {**kept, "type": "string"}
    if f"{MISSING_RULE}({column.name})" in broken:
        fields.pop("nullable", None)
    return replace(column, fields=fields)


# --- columns ----------------------------------------------------------------------------------------------------------


def _column(profile: ColumnProfile) -> ProposedColumn:
    fields: dict[str, Any] = {"type": profile.column.type}
    if profile.rows and not profile.missing:
        fields["nullable"] = False
    if profile.column.format:
        fields["format"] = profile.column.format
    if profile.column.missing_values:
        fields["missing_values"] = profile.column.missing_values
    return ProposedColumn(profile.name, fields, _column_comment(profile))


def _column_comment(profile: ColumnProfile) -> str:
    if not profile.rows:
        return "the sample has no rows"
    if profile.missing == profile.rows:
        return "no row has a value, so text is a guess"
    words = [_missing_comment(profile)]
    if profile.is_unique:
        words.append("all different")
    elif profile.values is None:
        words.append(f"more than {MAX_DISTINCT} distinct")
    else:
        words.append("one value only" if len(profile.values) == 1 else f"{len(profile.values)} distinct")
    if profile.column.type in ("date", "timestamp"):
        words.append(f"{_moment(profile.low)} to {_moment(profile.high)}")
    elif profile.low is not None:
        words.append(f"{_shown(profile.low)} to {_shown(profile.high)}")
    if profile.note:
        words.append(profile.note)
    return ", ".join(words)


def _missing_comment(profile: ColumnProfile) -> str:
    marks = [mark for mark in profile.column.missing_values or () if mark]
    written = f", written as {' or '.join(marks)}" if marks else ""
    return f"{profile.missing:,} of {profile.rows:,} missing{written}" if profile.missing else "none missing"


def _moment(value: Any) -> str:
    moment = pd.Timestamp(value)
    return str(moment.date()) if moment == moment.normalize() else moment.isoformat(" ", "seconds")


# --- expectations -----------------------------------------------------------------------------------------------------


def _expectations(profile: FileProfile) -> Iterator[ProposedExpectation]:
    rows = _count(profile.rows, "row")
    if profile.rows:
        name, arguments = "expect_table_row_count_to_be_between", {"min_value": 1, "severity": "critical"}
        yield ProposedExpectation(name, arguments, f"saw {rows}")
    for place, column in enumerate(profile.columns):
        yield from _uniqueness(column, is_first=place == 0)
        yield from _set_or_range(column)
        if column.regex and column.column.type == "string" and not _is_set(column):
            regex, what = column.regex
            arguments = {"column": column.name, "regex": regex}
            yield ProposedExpectation("expect_column_values_to_match_regex", arguments, f"saw {what}")


def _uniqueness(column: ColumnProfile, *, is_first: bool) -> Iterator[ProposedExpectation]:
    """Propose uniqueness only for keys, by name or position: in other columns, distinct values are mostly chance."""
    may_be_key = is_first or _KEY_NAME.search(column.name) is not None
    if may_be_key and _is_unique(column) and not column.missing and column.column.type in ("string", "integer"):
        name = "expect_column_values_to_be_unique"
        yield ProposedExpectation(name, {"column": column.name}, f"saw {column.rows:,} different values")


def _set_or_range(column: ColumnProfile) -> Iterator[ProposedExpectation]:
    if _is_set(column) and column.values:
        values = sorted(value for value, _ in column.values)
        counts = ", ".join(f"{value} {count:,} times" for value, count in column.values[:5])
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        arguments = {"column": column.name, "value_set": [_as_python(value) for value in values]}
        yield ProposedExpectation("expect_column_values_to_be_in_set", arguments, f"saw {counts}{more}")
        return
    if column.column.type not in ("integer", "number") or column.low == column.high:
        return
    if _is_unique(column) and _KEY_NAME.search(column.name):
        return  # a range means nothing for numbers that identify something
    bounds = wider(float(column.low), float(column.high), whole=column.column.type == "integer")
    if bounds:
        between = {"column": column.name, "min_value": bounds[0], "max_value": bounds[1]}
        comment = f"saw {_shown(column.low)} to {_shown(column.high)}"
        yield ProposedExpectation("expect_column_values_to_be_between", between, comment)


def _is_unique(column: ColumnProfile) -> bool:
    return column.is_unique and column.rows >= _MIN_ROWS_FOR_UNIQUE


def _is_set(column: ColumnProfile) -> bool:
    """Return whether a column has few values that recur; integers count only if they look like flags or grades.

    A single value may differ in the next file, such as a date or the name of a shop.
    """
    if not column.values or len(column.values) == 1:
        return False
    seen = column.rows - column.missing
    distinct = [value for value, _ in column.values]
    if column.column.type == "string":
        short = all(len(str(value)) <= _MAX_SET_TEXT for value in distinct)
        return short and len(distinct) <= MAX_SET_VALUES and seen >= _MIN_ROWS_PER_SET_VALUE * len(distinct)
    if column.column.type == "integer":
        small = len(distinct) <= 3 and all(-1 <= value <= 5 for value in distinct)
        return small and seen >= 2 * _MIN_ROWS_PER_SET_VALUE * len(distinct)
    return False


def wider(low: float, high: float, *, whole: bool) -> tuple[float, float] | None:
    """Return round bounds, a tenth wider than the values seen. They cross neither zero nor the range 0 to 1.

    None if the numbers are so large or so close together that rounding is not useful.
    """
    spread = high - low or abs(high)
    if max(abs(low), abs(high)) >= _EXACT_FLOAT or 0 < spread < _TINY:
        return None
    if not whole and low >= 0 and high <= 1:
        return 0, 1
    unit = 10.0 ** math.floor(math.log10(spread)) / 2 if spread else 1.0
    unit = max(unit, 1.0) if whole else unit
    bottom = round(math.floor((low - spread / 10) / unit) * unit, 12)
    top = round(math.ceil((high + spread / 10) / unit) * unit, 12)
    bottom = max(bottom, 0.0) if low >= 0 else bottom
    top = min(top, 0.0) if high <= 0 else top
    if whole and low == 1:
        bottom = 1.0
    if not (bottom <= low <= high <= top):
        return None
    return (int(bottom), int(top)) if float(bottom).is_integer() and float(top).is_integer() else (bottom, top)


# --- YAML -------------------------------------------------------------------------------------------------------------


def _format_fields(profile: FileProfile) -> dict[str, Any]:
    """Return the fields of the format, without what may differ between files, such as the compression."""
    source_format = profile.source_format
    guessed = {"type": source_format.type, **profile.found.options}
    detected: dict[str, Any] = {}
    if source_format.type == "csv":
        detected = {
            "delimiter": source_format.delimiter if source_format.delimiter != "," else None,
            "decimal": source_format.decimal if source_format.decimal != "." else None,
            "thousands": source_format.thousands,
        }
    fields = {**guessed, **{name: value for name, value in detected.items() if value is not None}}
    try:
        FileFormat.model_validate(fields)
    except ValidationError:  # marks that a contract cannot combine are detected again for each file
        return guessed
    return fields


def _option(name: str) -> str:
    return f"`{name}`"


def _remark(words: str) -> str:
    return f"  {_comment(words)}" if words else ""


def _comment(words: str) -> str:
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)
    return f"# {printable if len(printable) <= _MAX_COMMENT else printable[: _MAX_COMMENT - 1] + '…'}"


def _flow(value: Any) -> str:
    """Return a value on one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and not (value.isprintable() and value.isascii()):
        return _dumped(value, default_style='"')
    return _dumped(value)


def _dumped(value: Any, **options: Any) -> str:
    """Return a scalar as PyYAML writes it inside brackets, where more characters need quotes."""
    listed: str = yaml.safe_dump([value], default_flow_style=True, width=math.inf, allow_unicode=True, **options)
    return listed.strip()[1:-1]


def _shown(value: Any) -> str:
    """Return a number for people, with six significant digits."""
    plain = _as_python(value)
    return f"{plain:.6g}" if isinstance(plain, float) else str(plain)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _as_python(value: Any) -> Any:
    """Return a NumPy value as a Python value; a whole float as an integer."""
    python = value.item() if hasattr(value, "item") else value
    return int(python) if isinstance(python, float) and python.is_integer() and abs(python) < _EXACT_FLOAT else python
