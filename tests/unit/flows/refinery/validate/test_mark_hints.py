"""If numbers could be read with other separators, the message shows the lines to add to the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.refinery.refine import Refined, refine_file
from tests.unit.flows.refinery.tables import a_contract


def refined(folder: Path, content: str, kind: str) -> Refined:
    file = folder / "upload"
    file.write_text(content, encoding="utf-8")
    columns = {"a": "string", "b": kind}
    return refine_file(file, a_contract(format={"decimal": "."}, columns=columns), folder)


@pytest.mark.parametrize(
    ("kind", "values", "hint"),
    [
        ("integer", ["1,234", "1,000,000"], 'write `thousands: ","` under `format`'),
        ("number", ["1,234"], 'write `thousands: ","` or `decimal: ","` under `format`'),
        ("number", ["3,5"], 'write `decimal: ","` under `format`'),
        ("number", ["1.234,56", "1,5"], 'write `decimal: ","` and `thousands: "."` under `format`'),
        ("number", ["1\u202f234.5"], 'write `thousands: " "` under `format`'),
        ("number", ["3,5", "three"], None),
        ("date", ["3,5"], None),
    ],
)
def test_the_check_of_numbers_names_the_separators_that_fit_all_of_them(
    tmp_path: Path, kind: str, values: list[str], hint: str | None
) -> None:
    good = "2024-01-01" if kind == "date" else "12"
    result = refined(tmp_path, "a;b\n" + "".join(f"x;{value}\n" for value in [good, *values]), kind)
    assert [check.expected for check in result.checks if check.column == "b"] == [hint]


def test_a_file_without_a_good_row_is_rejected_with_the_separators_to_declare(tmp_path: Path) -> None:
    result = refined(tmp_path, "a;b\nx;3,5\ny;4,25\n", "number")
    assert [reason.code for reason in result.rejected] == ["no_good_row"]
    assert '`decimal: ","`' in result.rejected[0].message
