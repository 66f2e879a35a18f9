"""Each decision that a reader makes about a file, such as the delimiter, is reported with the reason for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.refinery.read.decisions import decisions_of
from tests.unit.flows.refinery.tables import a_contract, read_bytes

_NAMED = {"columns": {"a": "integer", "b": "string"}}


def decided(folder: Path, content: bytes, **fields: Any) -> dict[str, tuple[Any, str]]:
    contract = a_contract(**fields)
    found = read_bytes(folder, content, contract)[0].source_format
    return {decision.name: (decision.value, decision.basis) for decision in decisions_of(found, contract)}


@pytest.mark.parametrize(
    ("content", "fields", "name", "right"),
    [
        (b"a;b\n1;x\n", {}, "delimiter", (";", "proven")),
        (b"a;b,c\n1;x,y\n", {}, "delimiter", (",", "assumed")),
        (b"a;b,c\n1;x,y\n", {"columns": {"a": "integer"}}, "delimiter", (";", "proven")),
        (b"sep=;\na;b,c\n1;x,y\n", {}, "delimiter", (";", "proven")),
        (b"a;b\n1;x\n", {"format": {"delimiter": ";"}}, "delimiter", (";", "declared")),
        (b"a\n1\n", {}, "delimiter", (",", "assumed")),
        (b"a,b,\n1,x,\n", {}, "delimiters at the end of each record", (1, "proven")),
        (b"a,b\n1,x\n", {}, "encoding", ("utf-8", "proven")),
        (b"a,b\n1,\xe4\n", {"format": {"encoding": "cp1252"}}, "encoding", ("cp1252", "declared")),
        ("a,b\n1,ä\n".encode("utf-16"), {}, "encoding", ("utf-16-le", "proven")),
        (b"a,b\n1,x\n", {}, "quote", ('"', "assumed")),
        (b"a,b\n1,x\n", {}, "header on line", (1, "assumed")),
        (b"\n\na,b\n1,x\n", _NAMED, "header on line", (3, "proven")),
        (b"t\na,b\n1,x\n", {"format": {"skip_lines": 1}}, "header on line", (2, "declared")),
        (b"1,x\n", {**_NAMED, "format": {"header": False}}, "header on line", ("none", "declared")),
        (b"a,b\n1,x\n", {}, "decimal mark", (".", "assumed")),
        (b"a,b\n1.5,x\n", {}, "decimal mark", (".", "proven")),
        (b'a;b\n1,5;x\n"1.234,50";x\n', {}, "thousands mark", (".", "proven")),
        (b'[{"a": 1}]', {}, "format", ("json", "proven")),
        (b"a,b\n1,x\n", {"format": "csv"}, "format", ("csv", "declared")),
    ],
)
def test_each_decision_has_its_value_and_its_basis(
    tmp_path: Path, content: bytes, fields: dict[str, Any], name: str, right: tuple[Any, str]
) -> None:
    assert decided(tmp_path, content, **fields)[name] == right


def test_options_that_a_format_does_not_have_are_not_decided(tmp_path: Path) -> None:
    assert set(decided(tmp_path, b'[{"a": 1}]')) == {"format", "encoding"}
