"""Text after a closing quote in a CSV record is located by its line and column."""

from __future__ import annotations

import pytest

from flows.refinery.read.csv_records import misplaced_quote


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [('"a"b,1\n', 0, 4), (',"a"b\n', 0, 5), (',,"a"b\n', 0, 6), ('1,"x\ny"b\n', 1, 3), (",\n", 0, 2)],
)
def test_text_after_a_closing_quote_is_located_after_fields_of_any_kind(text: str, line: int, column: int) -> None:
    assert misplaced_quote(text, ",", '"', None) == (line, column)
