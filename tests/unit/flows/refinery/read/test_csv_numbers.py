"""What looks at a block of CSV piece by piece finds the same wherever the pieces end."""

from __future__ import annotations

import pytest

from flows.refinery.read import csv_numbers

_FIELDS = "12,0,-01, 007,2024-01-02,10:00:05,+3,0.5,1.20,000\n"


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 64])
def test_numbers_with_signs_in_front_are_found_in_any_pieces(monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    columns = _FIELDS.count(",") + 1
    block = (_FIELDS * 5).encode()
    found = csv_numbers.columns_with_marked_numbers(block, ",", '"', range(columns), columns, 5)
    assert found == {2, 3, 6, 9}
    monkeypatch.setattr(csv_numbers, "_PIECE_BYTES", piece_bytes)
    assert csv_numbers.columns_with_marked_numbers(block, ",", '"', range(columns), columns, 5) == found


@pytest.mark.parametrize("piece_bytes", [1, 5, 16, 17, 64])
@pytest.mark.parametrize("number", ["0.12345678901234567", "1e-300", "12E3"])
def test_a_number_that_may_differ_as_a_float_is_found_in_any_pieces(
    monkeypatch: pytest.MonkeyPatch, piece_bytes: int, number: str
) -> None:
    monkeypatch.setattr(csv_numbers, "_PIECE_BYTES", piece_bytes)
    plain = "name 12,2.5,2024-01-02\n" * 9
    assert not csv_numbers.may_differ_as_floats(plain.encode(), ".")
    assert csv_numbers.may_differ_as_floats(f"{plain}a,{number},b\n{plain}".encode(), ".")
