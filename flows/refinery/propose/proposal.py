"""Propose a contract from a sample file. The rules are a little wider than the sample, and comments give the evidence.

The proposal is tested on the sample, and rules that the sample breaks are removed.
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
from flows.refinery.propose.expectations import ProposedExpectation, expectations_of
from flows.refinery.propose.profiling import MAX_DISTINCT, ColumnProfile, FileProfile, OnProgress, profile_file
from flows.refinery.refine import Refined, refine_file
from flows.refinery.validate.coercion import MISSING_RULE, TYPE_RULES
from flows.refinery.words import counted, shortened, shown

_MAX_COMMENT = 160  # characters
_ROUNDS = 12


class SampleUnfit(TerminalError):
    """The sample passes no proposed contract. This is a bug in Sluice, because every sample should pass a contract
    without rules."""


class NothingDecoded(FileRejected):
    """No row of the sample that was given to `sluice contract new` can be decoded, so no contract can be proposed."""


@dataclass(frozen=True)
class ProposedColumn:
    """A column as the contract will list it."""

    name: str
    fields: dict[str, Any]
    comment: str


@dataclass(frozen=True)
class Proposal:
    """A contract that a sample file passes: the text of contract.yaml, and the result of refining the sample."""

    text: str
    contract: Contract
    profile: FileProfile
    refined: Refined


def propose_contract(sample: Path, dataset: str, *, on_progress: OnProgress = lambda _: None) -> Proposal:
    """Propose a contract that a sample file passes without quarantined rows, except for those that cannot be decoded.

    Args:
        on_progress: called with the current activity.

    Raises:
        FileRejected: the sample cannot be read as a table.
        NothingDecoded: none of the sample's rows can be decoded.
        SampleUnfit: the sample passes none of the contracts that were tried.
        ContractInvalid: `dataset` is not a valid name.
    """
    profile = profile_file(sample, on_progress)
    if profile.rows and profile.rows == sum(profile.misfits.values()):
        reasons = ", ".join(f"{reason} ({counted(rows, 'row')})" for reason, rows in sorted(profile.misfits.items()))
        raise NothingDecoded(
            f"no row of {sample.name} can be decoded: {reasons}; provide a sample with valid rows"
            f" (`sluice contract check default {sample.name}` shows what is wrong)"
        )
    draft = _Draft(
        dataset=dataset,
        sample_name=sample.name,
        profile=profile,
        columns=tuple(map(_column, profile.columns)),
        expectations=tuple(expectations_of(profile)),
        cleans_names=any(clean_name(column.name) != column.name for column in profile.columns),
    )
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        work_dir = Path(folder)
        for _ in range(_ROUNDS):
            on_progress(f"trying the contract: {counted(profile.rows, 'row')}")
            text = draft.render()
            contract = _loaded(text, dataset, work_dir)
            refined, broken = _try_on(sample, contract, work_dir)
            if not broken:
                return Proposal(text, contract, profile, refined)
            draft = draft.without(broken)
    raise SampleUnfit(f"no contract was found that {sample.name} passes; still broken: {sorted(broken)}")


def _loaded(text: str, dataset: str, work_dir: Path) -> Contract:
    folder = work_dir / dataset if re.fullmatch(r"[\w-]+", dataset) else work_dir / "contract"
    folder.mkdir(exist_ok=True)
    (folder / CONTRACT_FILE).write_text(text, encoding="utf-8")
    contract = load_contract(folder)
    check_contract(contract)
    return contract


def _try_on(sample: Path, contract: Contract, work_dir: Path) -> tuple[Refined, set[str]]:
    """Refine the sample. Return the result, and the rules that the sample breaks (`preprocess` if a step fails or the
    output cannot be written)."""
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        refined = refine_file(sample, contract, Path(folder))
    broken = {check.rule for check in refined.checks if not check.success and check.kind != "decode"}
    broken |= {"preprocess" if reason.part in ("preprocess", "write") else reason.code for reason in refined.rejected}
    return refined, broken


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
        return "\n".join([*self._head(), *self._rules(), *self._tail(), ""])

    def _head(self) -> Iterator[str]:
        profile = self.profile
        yield _comment(
            f"Proposed from the sample {self.sample_name}:"
            f" {counted(profile.rows, 'row')}, {counted(len(self.columns), 'column')}."
        )
        yield "# The comments describe the sample; the rules allow a little more. Correct them where you know more."
        for reason, rows in sorted(profile.misfits.items()):
            yield _comment(f"{counted(rows, 'row')} of the sample could not be decoded ({reason}); quarantined.")
        yield f"dataset: {_flow(self.dataset)}"
        yield f"source: [{_flow(f'incoming/{self.dataset}/**')}]"
        fields = _format_fields(profile)
        written = _flow(fields["type"] if len(fields) == 1 else fields)
        found = profile.source_format
        if found.other_sheets:
            others = ", ".join(found.other_sheets)
            yield _comment(f"The sheet {found.sheet} was read. To read another sheet, set `sheet`: {others}")
        if profile.found.doubt:
            yield f"# Check this first: {profile.found.doubt}"
        if guessed := [f"`{name}`" for name in profile.found.options if name in fields]:
            yield _comment(f"The sample does not prove {' and '.join(guessed)}: check that the values are right.")
        if profile.found.columns:
            lack = "has no name for the first one" if profile.found.options.get("skip_lines") else "has no names"
            yield f"# Columns are matched by position, because the file {lack}: change names as you like."
        how = ", ".join(filter(None, (found.encoding, found.compression)))
        if len(fields) == 1:
            yield f"# format: {written}{f' ({how})' if how else ''} is not fixed: files in other formats are read, too."
        else:
            yield f"format: {written}{_remark(how)}"

    def _rules(self) -> Iterator[str]:
        if self.columns:
            yield "columns:"
            for column in self.columns:
                yield f"  {_flow(column.name)}: {_flow(column.fields)}{_remark(column.comment)}"
            yield f"unknown_columns: freeze{_remark('a file with other columns is rejected; evolve publishes them')}"
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
            yield f"  - clean_column_names{_remark('some names have capitals, spaces or punctuation')}"
        yield "output: {format: parquet, compression: zstd}"


def _loosened(column: ProposedColumn, broken: set[str]) -> ProposedColumn:
    kind = column.fields["type"]
    fields = dict(column.fields)
    if f"{TYPE_RULES[kind]}({column.name})" in broken:
        # A string that meant a missing number may be an ordinary value in a text column.
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
        words.append(f"{shown(profile.low)} to {shown(profile.high)}")
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


# --- YAML -------------------------------------------------------------------------------------------------------------


def _format_fields(profile: FileProfile) -> dict[str, Any]:
    """Return the fields for `format` in the contract, without properties that may differ between files, such as the
    compression."""
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
    except ValidationError:  # separators that a contract cannot combine are detected in each file instead
        return guessed
    return fields


def _remark(words: str) -> str:
    return f"  {_comment(words)}" if words else ""


def _comment(words: str) -> str:
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)
    return f"# {shortened(printable, _MAX_COMMENT)}"


def _flow(value: Any) -> str:
    """Format a value as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and not (value.isprintable() and value.isascii()):
        return _dumped(value, default_style='"')
    return _dumped(value)


def _dumped(value: Any, **options: Any) -> str:
    """Format a scalar as PyYAML writes it inside brackets, where more characters need quotes."""
    listed: str = yaml.safe_dump([value], default_flow_style=True, width=math.inf, allow_unicode=True, **options)
    return listed.strip()[1:-1]
