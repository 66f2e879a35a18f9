"""Every row of a CSV file is decoded or becomes a misfit with its row number and line, unless the file is rejected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.refinery.read.partition import Limits
from flows.refinery.read.rejections import (
    EmptyFile,
    EncodingUnknown,
    FormatNotAllowed,
    RecordTooLong,
    TextUndecodable,
    TooManyRows,
)
from tests.unit.flows.refinery.tables import a_contract, misfits, numbers, read_bytes, typed, whole

IDS = a_contract(columns={"id": "string"}, unknown_columns="evolve")


def test_a_plain_file_is_read_in_partitions_with_row_numbers(tmp_path: Path) -> None:
    content = b"a,b\n" + b"".join(f"{i},x{i}\n".encode() for i in range(1, 11))
    partitions = read_bytes(tmp_path, content, rows_per_partition=4)
    assert [len(partition.frame) for partition in partitions] == [4, 4, 2]
    assert numbers(partitions) == list(range(1, 11))
    assert whole(partitions)["a"].tolist() == list(map(str, range(1, 11)))
    assert all(isinstance(partition.frame.index, pd.RangeIndex) for partition in partitions)


def test_ragged_rows_are_misfits_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"a,b\n1,x\n2\n3,y,z\n4,w\n")
    assert numbers(partitions) == [1, 4]
    assert [(m.row_number, m.reason, m.raw, m.line) for m in misfits(partitions)] == [
        (2, "too_few_fields", "2", 3),
        (3, "too_many_fields", "3,y,z", 4),
    ]


def test_a_long_and_a_short_row_that_cancel_out_are_both_found(tmp_path: Path) -> None:
    rows = "".join(f"{i},x\n" for i in range(100))
    for pair in ("7\n8,x,y\n", "8,x,y\n7\n"):
        partitions = read_bytes(tmp_path, f"a,b\n{rows}{pair}{rows}".encode())
        assert {m.row_number for m in misfits(partitions)} == {101, 102}
        assert len(numbers(partitions)) == 200


def test_blank_lines_are_not_rows(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"\n\na,b\n\n1,x\n  \n2,y\n\n\n3\n")
    assert numbers(partitions) == [1, 2]
    assert [(m.row_number, m.line) for m in misfits(partitions)] == [(3, 10)]


def test_one_column_with_blank_values_keeps_every_row(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b'a\nx\n""\n"  "\ny\n\nz\n')
    assert whole(partitions)["a"].tolist() == ["x", pytest.approx(np.nan, nan_ok=True), "  ", "y", "z"]
    assert numbers(partitions) == [1, 2, 3, 4, 5]


def test_quoted_delimiters_and_line_ends_belong_to_their_field(tmp_path: Path) -> None:
    content = b'a,b\n1,"x,\ny"\n2,"say ""hi"""\n3,z\n4,"only\n'
    partitions = read_bytes(tmp_path, content[: content.rindex(b"4")], rows_per_partition=1)
    assert whole(partitions)["b"].tolist() == ["x,\ny", 'say "hi"', "z"]
    assert numbers(partitions) == [1, 2, 3]


def test_the_line_of_a_misfit_counts_line_ends_within_quotes(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b'a,b\n1,"x\n\ny"\n2\n', rows_per_partition=1)
    assert [(m.row_number, m.line) for m in misfits(partitions)] == [(2, 5)]


def test_quotes_within_a_field_are_plain_characters(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b'size,b\n5" pipe,x\n6" pipe,y\n7,z\n')
    assert whole(partitions)["size"].tolist() == ['5" pipe', '6" pipe', "7"]


def test_nul_bytes_make_their_row_a_misfit(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"a,b\n" + b"1,x\n" * 50 + b"2,y\0z\n3,w\n")
    assert [(m.row_number, m.reason) for m in misfits(partitions)] == [(51, "nul_byte")]
    assert numbers(partitions)[-1] == 52


def test_bytes_that_are_not_utf8_make_their_row_a_misfit_and_are_escaped(tmp_path: Path) -> None:
    content = b"a,b\n" + "1,grün\n".encode() * 20 + b"2,gr\xfcn\n3,x\n"
    partitions = read_bytes(tmp_path, content)
    assert [(m.row_number, m.reason, m.raw) for m in misfits(partitions)] == [(21, "undecodable_text", "2,gr\\xfcn")]


def test_a_lone_carriage_return_makes_its_row_a_misfit(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"a,b\n1,x\n2,y\rz\n3,w\n")
    assert [(m.row_number, m.reason) for m in misfits(partitions)] == [(2, "stray_carriage_return")]
    assert numbers(partitions) == [1, 3]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_rows_may_end_with_any_line_end(tmp_path: Path, end: bytes) -> None:
    partitions = read_bytes(tmp_path, end.join([b"a,b", b"1,x", b"2,y"]))
    assert whole(partitions).to_dict("list") == {"a": ["1", "2"], "b": ["x", "y"]}


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", b"\xef\xbb\xbf"),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("utf-32-le", b"\xff\xfe\0\0"),
        ("utf-32-be", b"\0\0\xfe\xff"),
    ],
)
def test_unicode_is_detected_with_or_without_a_byte_order_mark(tmp_path: Path, encoding: str, mark: bytes) -> None:
    text = "name,ort\nJürgen,Köln\nAndré,Orléans\nMaría,Málaga\n"
    partitions = read_bytes(tmp_path, mark + text.encode(encoding))
    assert whole(partitions)["name"].tolist() == ["Jürgen", "André", "María"]
    assert partitions[0].source_format.encoding == encoding


@pytest.mark.parametrize("encoding", ["cp1252", "iso8859-2", "cp1251", "shift_jis"])
def test_no_other_encoding_is_guessed_and_the_message_contains_no_value(tmp_path: Path, encoding: str) -> None:
    text = {"cp1251": "имя", "shift_jis": "番号"}.get(encoding, "Köln")
    with pytest.raises(EncodingUnknown) as refused:
        read_bytes(tmp_path, f"a,b\n1,{text}\n".encode(encoding))
    assert refused.value.candidates
    assert not any(reading in str(refused.value) for reading in refused.value.readings.values())


def test_a_byte_order_mark_that_contradicts_the_contract_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(TextUndecodable):
        read_bytes(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n", a_contract(format={"encoding": "cp1252"}))


def test_the_declared_encoding_is_used_and_a_wrong_one_is_rejected(tmp_path: Path) -> None:
    content = "a,b\n1,żółw\n".encode("iso8859-2")
    contract = a_contract(format={"encoding": "iso8859-2"})
    assert whole(read_bytes(tmp_path, content, contract))["b"].tolist() == ["żółw"]
    with pytest.raises(TextUndecodable):
        read_bytes(tmp_path, b"a,b\n1,\xfc\xfc\n", a_contract(format={"encoding": "shift_jis"}))


def test_identifiers_declared_as_string_keep_their_zeros(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"id,n\n007,1\n,2\n010,\n", IDS)
    frame = whole(partitions)
    assert frame["id"].iloc[0] == "007"
    assert pd.isna(frame["id"].iloc[1])
    assert frame["id"].iloc[2] == "010"
    assert typed(partitions, IDS)["n"].dtype == "Int64"


def test_undeclared_columns_with_leading_zeros_stay_strings(tmp_path: Path) -> None:
    frame = typed(read_bytes(tmp_path, b"zip,phone,n\n01067,+4930,1\n10115,+4989,2\n"))
    assert frame["zip"].tolist() == ["01067", "10115"]
    assert frame["phone"].tolist() == ["+4930", "+4989"]
    assert frame["n"].tolist() == [1, 2]


def test_zeros_in_fractions_dates_and_exponents_do_not_make_numbers_strings(tmp_path: Path) -> None:
    rows = ["1,0.05,-0.5,1e-05,+1.5,2024-01-02 03:04,01/02/2024"] * 300
    frame = typed(read_bytes(tmp_path, ("i,a,b,c,d,e,f\n" + "\n".join(rows) + "\n").encode()))
    assert [str(frame[name].dtype) for name in "iabcd"] == ["int64", *["float64"] * 4]


@pytest.mark.parametrize("declared", [{}, {"n": "integer"}])
def test_large_integers_next_to_missing_values_lose_no_digit(tmp_path: Path, declared: dict[str, str]) -> None:
    content = b"n,b\n9007199254740993,x\n,y\n3,z\n"
    frame = whole(read_bytes(tmp_path, content, a_contract(columns=declared)))
    assert frame["n"].iloc[0] == "9007199254740993"


def test_a_number_that_is_too_large_for_a_float_stays_a_string(tmp_path: Path) -> None:
    frame = whole(read_bytes(tmp_path, b"n\n1e400\n2\n", a_contract(columns={"n": "number"})))
    assert frame["n"].tolist() == ["1e400", "2"]


def test_a_column_with_a_bad_value_keeps_its_strings_unchanged(tmp_path: Path) -> None:
    frame = whole(read_bytes(tmp_path, b"n,b\n1.50,x\n 2,y\nthree,z\n", a_contract(columns={"n": "number"})))
    assert frame["n"].tolist() == ["1.50", " 2", "three"]


def test_only_what_the_contract_declares_as_missing_is_missing(tmp_path: Path) -> None:
    content = b"country,n\nNA,1\n,2\n-,-\n"
    plain = whole(read_bytes(tmp_path, content, a_contract(columns={"country": "string"})))
    assert plain["country"].fillna("missing").tolist() == ["NA", "missing", "-"]
    own = a_contract(
        format={"missing_values": ["", "-"]}, columns={"country": {"type": "string", "missing_values": [""]}}
    )
    frame = whole(read_bytes(tmp_path, content, own))
    assert frame["country"].fillna("missing").tolist() == ["NA", "missing", "-"]
    assert frame["n"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_detected(tmp_path: Path, mark: str) -> None:
    text = "name,x;yz|b\n".replace(",x;yz|", mark) + "".join(f"n{i}{mark}{i}\n" for i in range(5))
    partitions = read_bytes(tmp_path, text.encode())
    assert partitions[0].source_format.delimiter == mark
    assert list(partitions[0].frame.columns) == ["name", "b"]


def test_the_contracts_columns_decide_between_delimiters(tmp_path: Path) -> None:
    content = b"a,x;b,y\n1,1;2,2\n3,3;4,4\n"
    contract = a_contract(columns={"a,x": "number", "b,y": "number"})
    frame = typed(read_bytes(tmp_path, content, contract), contract)
    assert frame.to_dict("list") == {"a,x": [1.1, 3.3], "b,y": [2.2, 4.4]}


def test_decimal_commas_are_detected(tmp_path: Path) -> None:
    partitions = read_bytes(tmp_path, b"a;b\n1,5;x\n2,25;y\n")
    assert typed(partitions)["a"].tolist() == [1.5, 2.25]
    assert partitions[0].source_format.decimal == ","


@pytest.mark.parametrize("rows_per_partition", [1, 9])
def test_only_exactly_the_declared_strings_mean_missing(tmp_path: Path, rows_per_partition: int) -> None:
    contract = a_contract(format={"missing_values": ["0", "-999"]}, columns={"b": "string"})
    content = b"a,b\n0,0\n0.0,0.0\n-999,-999.0\n00,00\n"
    rows = whole(read_bytes(tmp_path, content, contract, rows_per_partition=rows_per_partition))
    assert rows["a"].fillna("missing").tolist() == ["missing", "0.0", "missing", "00"]
    assert rows["b"].fillna("missing").tolist() == ["missing", "0.0", "-999.0", "00"]


def test_a_point_next_to_a_decimal_comma_separates_thousands(tmp_path: Path) -> None:
    (partition,) = read_bytes(tmp_path, b"n;m\n1.234;1\n1.234,50;2\n", a_contract(columns={"n": "number"}))
    assert (partition.source_format.decimal, partition.source_format.thousands) == (",", ".")


def test_a_comma_that_separates_thousands_is_not_a_decimal_separator(tmp_path: Path) -> None:
    contract = a_contract(format={"thousands": ",", "delimiter": ";"}, columns={"n": "number"})
    for rows_per_partition in (1, 9):
        partitions = read_bytes(tmp_path, b"n\n1,234\n1,234,567\n", contract, rows_per_partition=rows_per_partition)
        assert partitions[0].source_format.decimal == "."
        assert whole(partitions)["n"].tolist() == ["1,234", "1,234,567"]


def test_a_declared_delimiter_may_be_a_control_character(tmp_path: Path) -> None:
    contract = a_contract(format={"delimiter": "\x01"})
    (partition,) = read_bytes(tmp_path, b"a\x01b\n1\x012\n", contract)
    assert partition.frame.to_dict("list") == {"a": ["1"], "b": ["2"]}


def test_a_thousands_separator_is_detected_and_the_strings_are_kept(tmp_path: Path) -> None:
    """The separators are applied later, by stricter code than that of pandas, which would read 1.5 as 15."""
    partitions = read_bytes(tmp_path, b"a;b\n1.234,50;x\n2,25;y\n")
    assert (partitions[0].source_format.decimal, partitions[0].source_format.thousands) == (",", ".")
    assert whole(partitions)["a"].tolist() == ["1.234,50", "2,25"]


def test_lines_before_the_header_can_be_skipped(tmp_path: Path) -> None:
    content = b"Export of today\nby someone, somewhere\na,b\n1,x\n2\n"
    partitions = read_bytes(tmp_path, content, a_contract(format={"skip_lines": 2}))
    assert whole(partitions).to_dict("list") == {"a": ["1"], "b": ["x"]}
    assert misfits(partitions)[0].line == 5


def test_a_header_without_rows_is_an_empty_partition_with_columns(tmp_path: Path) -> None:
    (partition,) = read_bytes(tmp_path, b"a,b\n")
    assert list(partition.frame.columns) == ["a", "b"]
    assert partition.rows_in == 0


def test_a_file_with_only_misfits_still_has_its_columns(tmp_path: Path) -> None:
    (partition,) = read_bytes(tmp_path, b"a,b\n1\n2\n")
    assert list(partition.frame.columns) == ["a", "b"]
    assert partition.rows_in == len(partition.misfits) == 2


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_with_nothing_in_it_is_rejected(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(EmptyFile):
        read_bytes(tmp_path, content)


def test_a_file_with_nul_bytes_in_the_header_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FormatNotAllowed):
        read_bytes(tmp_path, b"a,\0b\n" + b"1,2\n" * 50)


def test_a_line_without_end_is_rejected_at_the_limit(tmp_path: Path) -> None:
    limits = Limits(max_record_bytes=100_000)
    for content in (b"x" * 5_000_000, b"a,b\n" + b"x" * 5_000_000, b'a,b\n1,"' + b"x\n" * 2_500_000):
        with pytest.raises(RecordTooLong, match=r"line [12]"):
            read_bytes(tmp_path, content, limits=limits)


def test_more_rows_than_the_limit_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(TooManyRows):
        read_bytes(tmp_path, b"a\n" + b"1\n" * 11, limits=Limits(max_rows=10), rows_per_partition=3)


def test_a_misfit_keeps_at_most_a_kibibyte(tmp_path: Path) -> None:
    (misfit,) = misfits(read_bytes(tmp_path, b"a,b\n" + "é".encode() * 5000 + b"\n1,2\n"))
    assert len(misfit.raw.encode()) <= 1024
    assert misfit.raw.startswith("éé")


def test_blocks_of_plain_and_of_faulty_rows_join_without_a_gap(tmp_path: Path) -> None:
    rows = [f'{i},"v,{i}"' if i % 7 else str(i) for i in range(1, 40_001)]
    partitions = read_bytes(tmp_path, ("a,b\n" + "\n".join(rows)).encode(), rows_per_partition=1500)
    found = numbers(partitions) + [m.row_number for m in misfits(partitions)]
    assert sorted(found) == list(range(1, 40_001))
    assert whole(partitions)["a"].tolist() == list(map(str, numbers(partitions)))
    assert all(m.raw == str(m.row_number) and m.line == m.row_number + 1 for m in misfits(partitions))
