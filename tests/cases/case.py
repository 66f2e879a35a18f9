"""A test case with its file, its contract and its expected result, and the code that runs it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from blocks.settings import CONTRACTS
from flows.refinery.contract.loading import load_contract
from flows.refinery.contract.model import Contract
from flows.refinery.read.path_columns import folders_of
from flows.refinery.refine import REJECTING, Refined, refine_file


class Verdict(StrEnum):
    """How the result of a case compares with the expected one. RIGHT, QUARANTINED and REJECTED are as expected."""

    RIGHT = "right"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    WRONG = "wrong"
    REFUSED = "needlessly rejected"
    UNEXPLAINED = "explained badly"


@dataclass(frozen=True)
class Case:
    """A test case: a file and what Sluice should do with it.

    Attributes:
        kind: what the case is about, such as "encoding", "quotes", "types", "workbook", "header" or "JSON".
        name: a description of the case in a few words.
        content: the bytes of the file.
        published: the values to publish, by column, without the quarantined rows. None means that Sluice must reject
            the file.
        contract: the fields of the contract; None means the default contract.
        quarantined: the row numbers of the rows to quarantine.
        may_reject: whether Sluice may reject the file even though `published` gives values.
        codes: the correct codes of a rejection's first reason. Empty means that any code is correct.
        mentions: strings that the reasons of a rejection must contain, such as the line to write into the contract.
        key: the object key of the upload. Folders in it may become columns.
    """

    kind: str
    name: str
    content: bytes
    published: Mapping[str, Sequence[Any]] | None
    contract: Mapping[str, Any] | None = None
    quarantined: Sequence[int] = ()
    may_reject: bool = False
    codes: Sequence[str] = ()
    mentions: Sequence[str] = ()
    key: str = "incoming/cases/upload"

    @property
    def title(self) -> str:
        """The kind and the name of the case."""
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True)
class Result:
    verdict: Verdict
    details: str = ""
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def run(case: Case) -> Result:
    """Refine the file of a case as the pipeline does, and compare the result with the expected one."""
    with tempfile.TemporaryDirectory() as folder:
        upload = Path(folder) / "upload"
        upload.write_bytes(case.content)
        try:
            refined = refine_file(upload, _contract_of(case), Path(folder), folders=folders_of(case.key))
        except REJECTING as error:
            return _judge_rejection(case, [(error.code, str(error))])
        if refined.rejected:
            return _judge_rejection(case, [(reason.code, reason.message) for reason in refined.rejected])
        return _judge_published(case, refined)


def _contract_of(case: Case) -> Contract:
    if case.contract is None:
        return load_contract(CONTRACTS / "default")
    return Contract.model_validate({"dataset": "cases", **case.contract})


def _judge_rejection(case: Case, reasons: list[tuple[str, str]]) -> Result:
    details = "; ".join(f"{code}: {message}" for code, message in reasons)
    if case.published is not None and not case.may_reject:
        return Result(Verdict.REFUSED, details)
    explained = (not case.codes or reasons[0][0] in case.codes) and all(words in details for words in case.mentions)
    return Result(Verdict.REJECTED if explained else Verdict.UNEXPLAINED, details)


def _judge_published(case: Case, refined: Refined) -> Result:
    values = pq.read_table(refined.outputs[0].path).to_pydict() if refined.outputs else {}
    quarantined: list[int] = []
    if refined.quarantine:
        quarantined = sorted(pq.read_table(refined.quarantine[0].path)["_row_number"].to_pylist())
    details = f"published {values}, quarantined rows {quarantined}"
    if case.published is None:
        return Result(Verdict.WRONG, details, values)
    if quarantined != sorted(case.quarantined):
        extra = set(quarantined) > set(case.quarantined)
        return Result(Verdict.REFUSED if extra else Verdict.WRONG, details, values)
    if not _are_same(case.published, values):
        return Result(Verdict.WRONG, details, values)
    return Result(Verdict.QUARANTINED if quarantined else Verdict.RIGHT, details, values)


def _are_same(right: Mapping[str, Sequence[Any]], values: Mapping[str, Sequence[Any]]) -> bool:
    """Return whether the columns have the same names in the same order, and the same values with the same types. For
    example, 1, 1.0 and "1" are different values."""
    return [*right] == [*values] and all(
        [(type(value), value) for value in right[name]] == [(type(value), value) for value in values[name]]
        for name in right
    )
