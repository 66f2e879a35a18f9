"""Each row of a file is good or is quarantined with every rule that it breaks, unless the whole file is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.refinery.contract.model import Contract
from flows.refinery.refine import Refined, refine_file
from flows.refinery.validate import judged_file
from flows.refinery.validate.expectations import ExpectationRaised
from flows.refinery.validate.whole_file_rules import TooManyRowsToJudge
from flows.refinery.waiting_rows import reasons_to_wait
from tests.unit.flows.refinery.tables import a_contract, good_of, kinds_of


def refine(folder: Path, content: str | bytes, contract: Contract, rows_per_partition: int = 250_000) -> Refined:
    source = folder / "upload"
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    return refine_file(source, contract, folder, rows_per_partition=rows_per_partition)


def good(refined: Refined) -> pd.DataFrame:
    """Return the good rows of a refined file."""
    return pd.DataFrame(good_of(refined).to_pydict(), dtype=object)


def quarantine(refined: Refined) -> dict[int, dict[str, str | None]]:
    """Return row number → {broken rule: offending value} for each quarantined row."""
    if not refined.quarantine:
        return {}
    rows = pq.read_table(refined.quarantine[0].path).to_pylist()
    return {row["_row_number"]: dict(zip(row["_rules"], row["_values"], strict=True)) for row in rows}


ORDERS = """id,quantity,price
A,1,2.5
B,two,3.5
C,3,-1
D,four,-2
"""
ORDERS_CONTRACT: dict[str, Any] = {
    "columns": {"id": "string", "quantity": "integer", "price": "number"},
    "expectations": [{"expect_column_values_to_be_between": {"column": "price", "min_value": 0}}],
}
NOT_INTEGER, NEGATIVE = "not_an_integer(quantity)", "expect_column_values_to_be_between(price)"


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_bad_row_is_quarantined_with_every_rule_that_it_broke_and_the_value_as_it_was(tmp_path: Path) -> None:
    refined = refine(tmp_path, ORDERS, a_contract(**ORDERS_CONTRACT))
    assert quarantine(refined) == {
        2: {NOT_INTEGER: "two"},
        3: {NEGATIVE: "-1"},
        4: {NOT_INTEGER: "four", NEGATIVE: "-2"},
    }
    assert list(good(refined)["id"]) == ["A"]


@pytest.mark.parametrize(
    ("expectations", "parts"),
    [
        ([], {"refine": 4}),
        ([{"expect_column_values_to_be_unique": {"column": "id"}}], {"validate": 4, "preprocess": 4}),
    ],
)
def test_progress_has_one_part_or_two_if_rows_wait_for_the_whole_file(
    expectations: list[Any], parts: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "upload").write_text("id\n1\n2\n3\n4\n")
    contract, shown = a_contract(columns={"id": "integer"}, expectations=expectations), dict[str, int]()
    refine_file(tmp_path / "upload", contract, tmp_path, on_progress=shown.__setitem__, rows_per_partition=2)
    assert shown == parts


def test_equal_times_are_not_unique_however_they_are_written(tmp_path: Path) -> None:
    unique = [{"expect_column_values_to_be_unique": {"column": "t"}}]
    contract = a_contract(columns={"t": "time"}, expectations=unique)
    refined = refine(tmp_path, "t\n08:00\n09:00\n08:00:00\n10:00:00.5\n10:00:00.500\n", contract, 2)
    assert sorted(quarantine(refined)) == [1, 3, 4, 5]


def test_half_precision_floats_are_read_like_any_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.array([2.0, None, 1.5], pa.float16())}), tmp_path / "halves")
    refined = refine(tmp_path, (tmp_path / "halves").read_bytes(), a_contract(columns={"n": "integer"}))
    assert list(good(refined)["n"]) == [2, None]
    assert quarantine(refined) == {3: {"not_an_integer(n)": "1.5"}}


def test_a_row_that_breaks_several_rules_is_counted_once_under_the_first(tmp_path: Path) -> None:
    refined = refine(tmp_path, ORDERS, a_contract(**ORDERS_CONTRACT))
    assert refined.quarantined == {NOT_INTEGER: 2, NEGATIVE: 1}
    assert refined.rows_in == 4
    assert refined.rows_published == 1


def test_the_quarantine_file_contains_the_row_as_it_was_written(tmp_path: Path) -> None:
    contract = a_contract(columns={"id": "string", "day": "date"})
    refined = refine(tmp_path, "id,day,note\n007,2024-02-30, hi \n", contract)
    assert refined.quarantine
    row = pq.read_table(refined.quarantine[0].path).to_pylist()[0]
    assert (row["id"], row["day"], row["note"], row["_raw"]) == ("007", "2024-02-30", " hi ", None)


def test_a_row_that_cannot_be_decoded_is_quarantined_between_the_others(tmp_path: Path) -> None:
    contract = a_contract(columns={"a": "integer", "b": "integer"})
    refined = refine(tmp_path, "a,b\n1,x\n2\n3,3\n", contract, rows_per_partition=1)
    assert list(quarantine(refined)) == [1, 2]
    assert list(good(refined)["a"]) == [3]
    assert refined.quarantined == {"too_few_fields": 1, "not_an_integer(b)": 1}


def test_a_missing_value_in_a_column_that_allows_none_is_a_reason(tmp_path: Path) -> None:
    contract = a_contract(columns={"a": {"type": "integer", "nullable": False}, "b": "integer"})
    refined = refine(tmp_path, "a,b\n,1\n2,\n", contract)
    assert quarantine(refined) == {1: {"missing_value(a)": None}}


def test_an_info_expectation_only_counts_failing_rows(tmp_path: Path) -> None:
    expectation = {"expect_column_values_to_be_between": {"column": "a", "min_value": 5, "severity": "info"}}
    refined = refine(tmp_path, "a\n1\n9\n", a_contract(columns={"a": "integer"}, expectations=[expectation]))
    assert (refined.rows_published, refined.quarantined, refined.rejected) == (2, {}, ())
    assert [(check.success, check.rows_failing) for check in refined.checks] == [(False, 1)]


@pytest.mark.parametrize("rows_per_partition", [1, 9])
def test_a_bad_row_lists_an_info_expectation_even_if_it_is_found_only_at_the_end(
    tmp_path: Path, rows_per_partition: int
) -> None:
    info = {"expect_column_values_to_be_between": {"column": "a", "min_value": 5, "severity": "info"}}
    unique = {"expect_column_values_to_be_unique": {"column": "a"}}
    contract = a_contract(columns={"a": "integer"}, expectations=[info, unique])
    refined = refine(tmp_path, "a\n1\n2\n1\n", contract, rows_per_partition)
    failed = {"expect_column_values_to_be_between(a)": "1", "expect_column_values_to_be_unique(a)": "1"}
    assert quarantine(refined) == {1: failed, 3: failed}
    assert refined.rows_published == 1


@pytest.mark.parametrize("rows_per_partition", [1, 9])
def test_a_row_without_a_required_key_is_quarantined_whatever_its_partition(
    tmp_path: Path, rows_per_partition: int
) -> None:
    contract = a_contract(columns={"a": {"type": "integer", "nullable": False}, "b": "string"})
    refined = refine(tmp_path, '{"a": 1}\n{"b": "x"}\n', contract, rows_per_partition)
    assert quarantine(refined) == {2: {"missing_value(a)": None}}


@pytest.mark.parametrize("rows_per_partition", [1, 9])
def test_a_boolean_is_recognised_by_its_string_whatever_its_partition(tmp_path: Path, rows_per_partition: int) -> None:
    contract = a_contract(columns={"a": "boolean"})
    refined = refine(tmp_path, "a,b\n+1,x\n1,x\ntrue,x\n1e-400,x\n", contract, rows_per_partition)
    assert quarantine(refined) == {1: {"not_a_boolean(a)": "+1"}, 4: {"not_a_boolean(a)": "1e-400"}}


def test_the_type_of_a_column_that_the_file_lacks_cannot_be_judged(tmp_path: Path) -> None:
    rule = {"expect_column_values_to_be_of_type": {"column": "b", "type_": "str"}}
    columns = {"a": "integer", "b": {"type": "string", "required": False}}
    refined = refine(tmp_path, "a\n1\n", a_contract(columns=columns, expectations=[rule]))
    (reason,) = refined.rejected
    expected = "expect_column_values_to_be_of_type(b) cannot be checked: the file has no column 'b'"
    assert reason.message == expected


# --- rules that need the whole file -----------------------------------------------------------------------------------


def test_offending_values_stay_with_their_row_if_a_row_has_none(tmp_path: Path) -> None:
    pair = {"column_A": "a", "column_B": "b", "ignore_row_if": "neither"}
    rules = [{"expect_column_pair_values_to_be_equal": pair}, {"expect_column_values_to_not_be_null": {"column": "b"}}]
    contract = a_contract(columns={"a": "integer", "b": "integer"}, expectations=rules)
    refined = refine(tmp_path, "a,b\n1,2\n,\n3,\n4,5\n", contract)
    equal, not_null = "expect_column_pair_values_to_be_equal(a, b)", "expect_column_values_to_not_be_null(b)"
    assert quarantine(refined) == {
        1: {equal: "a=1, b=2"},
        2: {equal: None, not_null: None},
        3: {equal: "a=3", not_null: None},
        4: {equal: "a=4, b=5"},
    }


@pytest.mark.parametrize(
    ("expectation", "waits"),
    [
        ({"expect_column_median_to_be_between": {"column": "a", "min_value": 0}}, False),
        ({"expect_column_values_to_be_of_type": {"column": "a", "type_": "int"}}, False),
        ({"expect_column_values_to_be_unique": {"column": "a"}}, True),
        ({"expect_column_values_to_be_increasing": {"column": "a"}}, True),
        ({"expect_column_value_z_scores_to_be_less_than": {"column": "a", "threshold": 9, "double_sided": True}}, True),
        ({"expect_column_values_to_be_unique": {"column": "a", "severity": "info"}}, False),
    ],
    ids=str,
)
def test_rows_wait_only_for_rules_that_may_quarantine_them_at_the_end_of_the_file(
    tmp_path: Path, expectation: dict[str, Any], waits: bool
) -> None:
    contract = a_contract(columns={"a": "integer"}, expectations=[expectation], unknown_columns="freeze")
    (tmp_path / "upload").write_bytes(b"a\n1\n2\n")
    parts = set[str]()
    refine_file(tmp_path / "upload", contract, tmp_path, on_progress=lambda part, _: parts.add(part))
    assert parts == ({"validate", "preprocess"} if waits else {"refine"})
    assert bool(reasons_to_wait(contract, "csv")) is waits


@pytest.mark.parametrize("rows_per_partition", [1, 2, 100])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_duplicate_in_a_late_partition_quarantines_the_row_of_an_early_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_partition: int, memory_bytes: int
) -> None:
    monkeypatch.setattr(judged_file, "_IN_MEMORY_BYTES", memory_bytes)  # of rows that wait
    contract = a_contract(
        columns={"id": "string", "n": "integer"}, expectations=[{"expect_column_values_to_be_unique": {"column": "id"}}]
    )
    refined = refine(tmp_path, "id,n\nA,1\nB,2\nC,x\nD,4\nA,5\n", contract, rows_per_partition)
    unique = "expect_column_values_to_be_unique(id)"
    assert quarantine(refined) == {1: {unique: "A"}, 3: {"not_an_integer(n)": "x"}, 5: {unique: "A"}}
    assert list(good(refined)["id"]) == ["B", "D"]
    assert refined.quarantined == {unique: 2, "not_an_integer(n)": 1}


@pytest.mark.parametrize("rows_per_partition", [1, 2, 3, 100])
@pytest.mark.parametrize(("keep", "bad"), [("first", [4, 5, 6]), ("last", [1, 2, 4]), ("none", [1, 2, 4, 5, 6])])
def test_of_rows_with_the_same_key_the_first_or_the_last_of_the_file_is_kept(
    tmp_path: Path, keep: str, bad: list[int], rows_per_partition: int
) -> None:
    keys = {"expect_compound_columns_to_be_unique": {"column_list": ["id", "n"], "keep": keep}}
    contract = a_contract(columns={"id": "string", "n": "integer"}, expectations=[keys])
    refined = refine(tmp_path, "id,n\nA,1\nB,1\nA,2\nA,1\nA,1\nB,1\n", contract, rows_per_partition)
    assert sorted(quarantine(refined)) == bad
    assert refined.rows_published == 6 - len(bad)
    (check,) = [check for check in refined.checks if check.expectation.startswith("expect_")]
    assert (check.rows_failing, check.success) == (len(bad), False)


def test_values_whose_hashes_collide_are_not_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def same_hash_for_all(keys: pd.DataFrame) -> Any:
        return pd.util.hash_pandas_object(keys.iloc[:, 0].str.len(), index=False).to_numpy()

    monkeypatch.setattr("flows.refinery.validate.expectations.hashes_of", same_hash_for_all)
    contract = a_contract(
        columns={"id": "string"}, expectations=[{"expect_column_values_to_be_unique": {"column": "id"}}]
    )
    refined = refine(tmp_path, "id\nA\nB\nC\nB\n", contract, 2)
    assert list(quarantine(refined)) == [2, 4]


def test_the_order_of_a_column_is_judged_across_partitions(tmp_path: Path) -> None:
    contract = a_contract(
        columns={"n": "integer"}, expectations=[{"expect_column_values_to_be_increasing": {"column": "n"}}]
    )
    content = "n,m\n1,a\n5,b\n3,c\n4,d\n,e\n2,f\n"
    results = [list(quarantine(refine(tmp_path, content, contract, rows))) for rows in (1, 2, 3, 100)]
    assert results == [[3, 6]] * 4


def test_an_outlier_is_found_against_the_whole_column(tmp_path: Path) -> None:
    expectation = {
        "expect_column_value_z_scores_to_be_less_than": {"column": "n", "threshold": 2, "double_sided": True}
    }
    contract = a_contract(columns={"n": "number"}, expectations=[expectation])
    values = [1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 50]
    refined = refine(tmp_path, "n\n" + "\n".join(map(str, values)) + "\n", contract, 3)
    assert list(quarantine(refined)) == [11]


def test_a_rule_on_a_whole_column_with_too_many_rows_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.refinery.validate.whole_file_rules.WHOLE_FILE_ROW_LIMIT", 2)
    expectation = {"expect_column_median_to_be_between": {"column": "n", "min_value": 0}}
    with pytest.raises(TooManyRowsToJudge, match=r"2 rows.*3"):
        refine(tmp_path, "n\n1\n2\n3\n", a_contract(columns={"n": "number"}, expectations=[expectation]))


# --- rejected files ---------------------------------------------------------------------------------------------------


def rejections(folder: Path, content: str, **fields: Any) -> list[str]:
    """Return the messages with which a file is rejected; an empty list if it is not."""
    refined = refine(folder, content, a_contract(**fields))
    assert bool(refined.outputs) != bool(refined.rejected)
    return [reason.message for reason in refined.rejected]


def test_a_table_level_failure_rejects_the_file_with_observed_against_expected(tmp_path: Path) -> None:
    expectations = [{"expect_table_row_count_to_be_between": {"min_value": 5}}]
    assert rejections(tmp_path, "a\n1\n", expectations=expectations) == [
        "expect_table_row_count_to_be_between: observed 1, expected min_value 5"
    ]


def test_a_fraction_below_mostly_rejects_the_file_and_one_above_quarantines_the_rows(tmp_path: Path) -> None:
    def expectations(mostly: float) -> list[dict[str, Any]]:
        return [{"expect_column_values_to_be_between": {"column": "a", "min_value": 2, "mostly": mostly}}]

    content = "a\n1\n2\n3\n4\n"
    assert rejections(tmp_path, content, columns={"a": "integer"}, expectations=expectations(0.9)) == [
        "expect_column_values_to_be_between(a): 1 of 4 rows fail, so 75% pass; at least 90% must pass (mostly)"
    ]
    contract = a_contract(columns={"a": "integer"}, expectations=expectations(0.75))
    assert list(quarantine(refine(tmp_path, content, contract))) == [1]


def test_a_critical_failure_of_one_row_rejects_the_file(tmp_path: Path) -> None:
    expectations = [{"expect_column_values_to_not_be_null": {"column": "a", "severity": "critical"}}]
    assert rejections(tmp_path, "a,b\n,1\n2,2\n", columns={"a": "integer"}, expectations=expectations) == [
        "expect_column_values_to_not_be_null(a): 1 of 2 rows fail, so 50% pass; its severity is critical,"
        " so none may fail"
    ]


def test_more_bad_rows_than_allowed_reject_the_file(tmp_path: Path) -> None:
    contract = {"columns": {"a": "integer"}}
    content = "a\n1\nx\n"
    assert rejections(tmp_path, content, **contract, bad_rows={"max_fraction": 0.4}) == [
        "1 of 2 rows (50%) are bad; the contract allows at most 40%"
    ]
    assert rejections(tmp_path, content, **contract, bad_rows={"max_fraction": 0.5}) == []
    assert rejections(tmp_path, content, **contract, bad_rows={"max_count": 0}) != []
    assert rejections(tmp_path, content, **contract, bad_rows={"policy": "reject_file"}) == [
        "1 of 2 rows (50%) are bad; the contract allows none"
    ]


def test_a_rejected_file_publishes_nothing_and_drops_all_of_its_rows(tmp_path: Path) -> None:
    contract = a_contract(expectations=[{"expect_table_row_count_to_equal": {"value": 9}}])
    refined = refine(tmp_path, "a\n1\n2\n", contract)
    assert (refined.rows_published, refined.outputs, refined.dropped) == (0, (), {"file_rejected": 2})


def test_no_message_of_a_rejection_contains_a_value_of_the_data(tmp_path: Path) -> None:
    expectations = [
        {"expect_column_max_to_be_between": {"column": "secret", "max_value": 1}},
        {"expect_column_distinct_values_to_be_in_set": {"column": "secret", "value_set": [1]}},
        {"expect_column_values_to_be_in_set": {"column": "secret", "value_set": [1], "severity": "critical"}},
    ]
    messages = rejections(tmp_path, "secret\n4711\n", columns={"secret": "integer"}, expectations=expectations)
    assert len(messages) == 3
    assert "4711" not in " ".join(messages)


# --- columns ----------------------------------------------------------------------------------------------------------


def test_a_missing_column_rejects_is_filled_or_quarantines_as_the_contract_declares(tmp_path: Path) -> None:
    columns = {"a": "integer", "b": "integer"}
    assert rejections(tmp_path, "a\n1\n", columns=columns) == ["the file lacks column 'b', which the contract requires"]
    evolved = refine(tmp_path, "a\n1\n", a_contract(columns=columns, missing_columns="evolve"))
    assert good(evolved)["b"].isna().all()
    held = refine(tmp_path, "a\n1\n", a_contract(columns=columns, missing_columns="quarantine"))
    assert held.quarantined == {"missing_column(b)": 1}


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("column_type", ["date", "integer", "boolean"])
def test_an_absent_column_that_is_not_required_is_filled_with_missing_values(
    tmp_path: Path, column_type: str, nullable: bool
) -> None:
    columns = {"a": "integer", "b": {"type": column_type, "required": False, "nullable": nullable}}
    assert good(refine(tmp_path, "a\n1\n", a_contract(columns=columns)))["b"].isna().all()


def test_an_unknown_column_is_published_rejects_or_quarantines_as_the_contract_declares(tmp_path: Path) -> None:
    content, columns = "a,new\n1,\n2,x\n", {"a": "integer"}
    assert list(good(refine(tmp_path, content, a_contract(columns=columns)))["new"]) == [None, "x"]
    assert rejections(tmp_path, content, columns=columns, unknown_columns="freeze") == [
        "the file has column 'new', which the contract does not declare"
    ]
    held = refine(tmp_path, content, a_contract(columns=columns, unknown_columns="quarantine"))
    assert quarantine(held) == {2: {"unknown_column": "x"}}
    assert "new" not in good(held)


def test_an_expectation_on_a_missing_column_rejects_the_file(tmp_path: Path) -> None:
    expectations = [{"expect_column_values_to_not_be_null": {"column": "b"}}]
    assert rejections(tmp_path, "a\n1\n", expectations=expectations) == [
        "expect_column_values_to_not_be_null(b) cannot be checked: the file has no column 'b'"
    ]


@pytest.mark.parametrize("rows_per_partition", [1, 2, 3, 100])
def test_undeclared_columns_get_the_same_types_with_any_partition_size(tmp_path: Path, rows_per_partition: int) -> None:
    content = "a,b,c,d\n1,1,,true\n2,2.5,,false\n007x,3,9,true\n"
    refined = refine(tmp_path, content, a_contract(), rows_per_partition)
    assert kinds_of(refined) == {"a": "string", "b": "number", "c": "integer", "d": "boolean"}
    assert list(good(refined)["a"]) == ["1", "2", "007x"]


@pytest.mark.parametrize("rows_per_partition", [64, 100_000])
@pytest.mark.parametrize("written", ["00123", "+491701234567", '"007"', "-007", " 007"])
def test_leading_zeros_and_plus_signs_are_kept_wherever_they_first_appear(
    tmp_path: Path, written: str, rows_per_partition: int
) -> None:
    rows = [f"{number},{90_000 - number},0{number % 9}.02.2024,0.5" for number in range(300)]
    header, late = "a,b,d,n\n", f"300,{written},01.02.2024,1.05\n"
    refined = refine(tmp_path, header + "\n".join(rows) + "\n" + late, a_contract(), rows_per_partition)
    assert kinds_of(refined) == {"a": "integer", "b": "string", "d": "string", "n": "number"}
    assert list(good(refined)["b"]) == [*(str(90_000 - number) for number in range(300)), written.strip('"')]


def test_a_late_column_of_json_lines_is_missing_in_earlier_rows(tmp_path: Path) -> None:
    refined = refine(tmp_path, '{"a": 1}\n{"a": 2}\n{"a": 3, "b": "x"}\n', a_contract(), 1)
    assert refined.columns_in == ("a", "b")
    assert list(good(refined)["b"]) == [None, None, "x"]


# --- GX's own errors --------------------------------------------------------------------------------------------------


def test_an_expectation_that_raises_is_named_with_its_column_and_without_a_value(tmp_path: Path) -> None:
    expectations = [{"expect_column_values_to_match_json_schema": {"column": "a", "json_schema": {"type": "object"}}}]
    contract = a_contract(expectations=expectations)
    with pytest.raises(ExpectationRaised) as raised:
        refine(tmp_path, "a\n{}\nsecret{\n", contract)
    assert str(raised.value).startswith(
        "expect_column_values_to_match_json_schema on 'a' gave no verdict: JSONDecodeError"
    )
    assert "secret" not in str(raised.value)


# --- empty files ------------------------------------------------------------------------------------------------------


def test_a_file_without_rows_is_judged(tmp_path: Path) -> None:
    contract = a_contract(
        columns={"a": "integer"},
        expectations=[
            {"expect_column_values_to_be_between": {"column": "a", "min_value": 1}},
            {"expect_column_values_to_be_unique": {"column": "a"}},
            {"expect_table_row_count_to_be_between": {"min_value": 1}},
        ],
    )
    refined = refine(tmp_path, "a\n", contract)
    assert [reason.code for reason in refined.rejected] == ["expect_table_row_count_to_be_between"]
    assert [check.success for check in refined.checks] == [True, True, False]


def test_a_file_without_rows_is_published_empty_if_no_rule_rejects_it(tmp_path: Path) -> None:
    contract = a_contract(columns={"a": "integer", "b": "date"})
    refined = refine(tmp_path, "a,b\n", contract)
    assert refined.rows_published == 0
    schema = pq.read_schema(refined.outputs[0].path)
    assert [str(field.type) for field in schema] == ["int64", "date32[day]"]
