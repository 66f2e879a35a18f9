"""A case: an input, its contract and its right result; and what Sluice makes of it."""

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
    """How a result compares with the right one."""

    RIGHT = "right"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    WRONG = "wrong"
    REFUSED = "needlessly refused"
    UNEXPLAINED = "explained badly"


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: what it is about: encoding, quotes, marks, types, workbook, header, names, JSON, ...
        name: what it is, in a few words.
        content: the file's bytes.
        published: by column, the values that may be published; None where publishing anything is wrong.
        contract: fields of its contract; None: the default contract.
        quarantined: the numbers of the rows that belong into quarantine; `published` is without them.
        may_reject: whether rejecting the file is right, too. Always so where `published` is None.
        codes: the codes of right reasons for a rejection; empty: any.
        key: of the upload; its folders may become columns.
        mentions: texts that the reasons of a rejection contain, such as the line to write into the contract.
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
        """Kind and name."""
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True)
class Result:
    """What came of a case."""

    verdict: Verdict
    details: str = ""
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def run(case: Case) -> Result:
    """Refine the case's file as the chain does, and compare."""
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
    explained = (not case.codes or reasons[0][0] in case.codes) and all(text in details for text in case.mentions)
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
    """Whether names, their order, values and the values' types are the same: 1, 1.0 and "1" are three values."""
    return [*right] == [*values] and all(
        [(type(value), value) for value in right[name]] == [(type(value), value) for value in values[name]]
        for name in right
    )
