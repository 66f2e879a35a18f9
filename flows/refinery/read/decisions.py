"""List the decisions on how a file was read, and their reasons, for receipts and messages."""

from collections.abc import Iterator

from flows.refinery.checks import Basis, Decision
from flows.refinery.contract.model import Contract, FileFormat
from flows.refinery.read.partition import SourceFormat


def decisions_of(found: SourceFormat, contract: Contract) -> tuple[Decision, ...]:
    """Return the decisions. Each was declared by the contract, proven by the file, or assumed because nothing
    contradicts it."""
    given = contract.format
    decided = [
        Decision(name="format", value=found.type, basis="proven" if given.type == "auto" else "declared"),
        Decision(name="compression", value=found.compression, basis="proven"),
        Decision(name="encoding", value=found.encoding, basis="declared" if given.encoding else "proven"),
        Decision(name="sheet", value=found.sheet, basis=_basis(given, "sheet", proven=not found.other_sheets)),
    ]
    if found.type == "csv":
        decided += _csv_decisions(found, contract)
    return tuple(decision for decision in decided if decision.value is not None)


def _csv_decisions(found: SourceFormat, contract: Contract) -> Iterator[Decision]:
    given = contract.format
    yield Decision(
        name="delimiter", value=found.delimiter, basis=_basis(given, "delimiter", proven=found.is_delimiter_proven)
    )
    if found.trailing_delimiters:
        basis = _basis(given, "trailing_delimiter", proven=True)
        yield Decision(name="delimiters at the end of each record", value=found.trailing_delimiters, basis=basis)
    yield Decision(name="quote", value=given.quote, basis=_basis(given, "quote", proven=False))
    yield Decision(name="escape", value=given.escape, basis="declared")
    is_named = bool(contract.columns) and found.layout_fault is None
    header = _basis(given, "header", "skip_lines", proven=is_named)
    yield Decision(name="header on line", value=found.header_line or "none", basis=header)
    decimal = _basis(given, "decimal", "thousands", proven=found.is_decimal_proven)
    yield Decision(name="decimal mark", value=found.decimal, basis=decimal)
    yield Decision(name="thousands mark", value=found.thousands, basis=_basis(given, "thousands", proven=True))


def _basis(given: FileFormat, *options: str, proven: bool) -> Basis:
    if given.model_fields_set & set(options) and any(getattr(given, option) is not None for option in options):
        return "declared"
    return "proven" if proven else "assumed"
