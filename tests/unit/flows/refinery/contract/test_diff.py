"""Comparing two versions of a contract shows how each change affects files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deployment import cli
from flows.refinery.contract.diff import Effect, changes_between
from tests.unit.flows.refinery.tables import a_contract

BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
COLUMNS = {"columns": {"a": "integer", "b": "string"}}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (effect, message) for each difference between two contracts with these additional fields."""
    found = changes_between(a_contract(**{**COLUMNS, **before}), a_contract(**{**COLUMNS, **after}))
    return [(str(change.effect), change.message) for change in found]


def between(**arguments: Any) -> dict[str, Any]:
    return {"expectations": [{BETWEEN: {"column": "a", **arguments}}]}


def unique(**arguments: Any) -> dict[str, Any]:
    return {"expectations": [{"expect_column_values_to_be_unique": {"column": "a", **arguments}}]}


def in_set(*values: str) -> dict[str, Any]:
    return {"expectations": [{IN_SET: {"column": "b", "value_set": list(values)}}]}


def test_a_contract_does_not_differ_from_itself() -> None:
    assert changes(between(min_value=1), between(min_value=1)) == []


@pytest.mark.parametrize(
    ("before", "after", "effect", "words"),
    [
        (between(min_value=1), between(min_value=2), "stricter", "min_value is 2 instead of 1"),
        (unique(), unique(keep="first"), "looser", "keep is 'first'"),
        (unique(keep="last"), unique(), "stricter", "keep is removed (it was 'last')"),
        (between(min_value=2), between(min_value=1), "looser", "min_value is 1 instead of 2"),
        (between(max_value=5), between(max_value=9), "looser", "max_value is 9 instead of 5"),
        (between(max_value=9), between(max_value=5), "stricter", "max_value is 5 instead of 9"),
        (between(min_value=1, max_value=9), between(min_value=1), "looser", "max_value is removed (it was 9)"),
        (between(min_value=1), between(min_value=1, mostly=0.9), "looser", "mostly is 0.9"),
        (between(min_value=1, mostly=0.9), between(min_value=1), "stricter", "mostly is removed (it was 0.9)"),
        (in_set("x"), in_set("x", "y"), "looser", "value_set with y"),
        (in_set("x", "y"), in_set("y"), "stricter", "value_set without x"),
        (in_set("x", "y"), in_set("y", "z"), "stricter", "value_set with z and without x"),
        (in_set("x", "y"), in_set("y", "x"), "no effect", "value_set in a different order"),
        ({}, in_set("x"), "stricter", f"{IN_SET}(b) is added, with value_set ['x']"),
        (in_set("x"), {}, "looser", f"{IN_SET}(b) is removed"),
        (
            between(min_value=1),
            between(min_value=1, severity="critical"),
            "stricter",
            "its severity is critical instead of warning",
        ),
        ({}, between(min_value=1, severity="info"), "no effect", "is added"),
        ({}, {"unknown_columns": "freeze"}, "stricter", "unknown_columns: freeze instead of evolve"),
        ({}, {"missing_columns": "evolve"}, "looser", "missing_columns: evolve instead of freeze"),
        ({}, {"bad_rows": {"max_fraction": 0.1}}, "stricter", "bad rows: max_fraction is 0.1"),
        ({"bad_rows": {"max_count": 1}}, {"bad_rows": {"max_count": 9}}, "looser", "max_count is 9 instead of 1"),
        ({}, {"bad_rows": {"policy": "reject_file"}}, "stricter", "reject_file instead of quarantine"),
        ({}, {"format": {"type": "csv", "delimiter": ";"}}, "reads differently", "delimiter is ';' instead of None"),
        ({}, {"source": "incoming/x/**"}, "reads differently", "files come from incoming/x/**"),
        ({}, {"path_columns": "dt"}, "reads differently", "path_columns is ('dt',) instead of ()"),
        (
            {},
            {"preprocess": ["clean_column_names"]},
            "different output",
            "clean_column_names is added, as number 1",
        ),
        ({}, {"output": {"format": "csv"}}, "different output", "format is 'csv' instead of 'parquet'"),
        ({}, {"on_reupload": "append"}, "different output", "on_reupload is 'append' instead of 'replace'"),
        ({}, {"description": "x"}, "no effect", "descriptions were changed"),
    ],
)
def test_a_change_is_reported_with_its_effect(
    before: dict[str, Any], after: dict[str, Any], effect: str, words: str
) -> None:
    assert [found for found, message in changes(before, after) if words in message] == [effect]


@pytest.mark.parametrize(
    ("before", "after", "effect", "words"),
    [
        ("integer", {"type": "integer", "nullable": False}, "stricter", "must not have missing values"),
        ({"type": "integer", "required": False}, "integer", "stricter", "is required"),
        ("integer", "number", "looser", "number instead of integer: every value that was valid still is"),
        ("integer", "number", "different output", "is published as number instead of integer"),
        ("string", "integer", "stricter", "values that cannot be read as this type are quarantined"),
        ("date", {"type": "date", "format": "%d.%m.%Y"}, "reads differently", "format is '%d.%m.%Y' instead of None"),
    ],
)
def test_a_changed_column_is_reported(before: Any, after: Any, effect: str, words: str) -> None:
    found = changes({"columns": {"a": before}}, {"columns": {"a": after}})
    assert [got for got, message in found if words in message] == [effect]


def test_where_missing_columns_are_accepted_a_required_one_only_changes_what_is_reported() -> None:
    asked, free = {"a": "integer"}, {"a": {"type": "integer", "required": False}}
    taken = {"missing_columns": "evolve"}
    assert changes({"columns": free, **taken}, {"columns": asked, **taken}) == [
        ("monitoring", "column 'a': a file without it is reported")
    ]
    assert changes({"columns": asked, **taken}, {"columns": free, **taken}) == [
        ("monitoring", "column 'a': a file without it is no longer reported")
    ]
    assert changes({"columns": asked}, {"columns": free}) == [("looser", "column 'a' is no longer required")]


def test_added_and_removed_columns_are_reported_with_their_effect() -> None:
    one, two = {"columns": {"a": "string"}}, {"columns": {"a": "string", "b": "date"}}
    assert changes(one, two) == [("stricter", "column 'b' is required, as date")]
    assert changes(two, one) == [("looser", "column 'b' (date) is no longer required")]
    frozen = {"unknown_columns": "freeze"}
    assert changes({**two, **frozen}, {**one, **frozen}) == [
        ("stricter", "column 'b' (date) is unknown now: files with it are rejected")
    ]


def test_where_missing_columns_are_accepted_a_new_one_is_not_stricter() -> None:
    evolving = {"missing_columns": "evolve"}
    one, two = {"columns": {"a": "string"}, **evolving}, {"columns": {"a": "string", "b": "date"}, **evolving}
    assert changes(one, two) == [("reads differently", "column 'b' is read as date")]


def test_a_changed_interval_between_files_is_reported() -> None:
    daily, hourly = {"expected_every_hours": 24}, {"expected_every_hours": 1}
    assert changes({}, daily) == [("monitoring", "expected_every_hours is 24.0 instead of None")]
    assert changes(daily, hourly) == [("monitoring", "expected_every_hours is 1.0 instead of 24.0")]
    assert changes(daily, {}) == [("monitoring", "expected_every_hours is None instead of 24.0")]


def test_a_changed_limit_of_concurrent_uploads_is_reported() -> None:
    one, two = {"max_concurrent_uploads": 1}, {"max_concurrent_uploads": 2}
    assert changes({}, one) == [("monitoring", "max_concurrent_uploads is 1 instead of None")]
    assert changes(two, one) == [("monitoring", "max_concurrent_uploads is 1 instead of 2")]


def test_stricter_rules_come_first() -> None:
    effects = [effect for effect, _ in changes(between(min_value=1, max_value=5), between(min_value=2, max_value=9))]
    assert effects == [str(Effect.STRICTER), str(Effect.LOOSER)]


# --- the command ------------------------------------------------------------------------------------------------------


def write(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "contract.yaml").write_text(f"dataset: {folder.name}\n{text}")


def diff(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["contract", "diff", *map(str, arguments)], env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_two_folders_are_compared(tmp_path: Path) -> None:
    (tmp_path / "after").mkdir()
    write(tmp_path / "x", "columns: {a: integer}\n")
    write(tmp_path / "after" / "x", "columns: {a: number}\n")
    code, shown = diff(tmp_path / "x", tmp_path / "after" / "x" / "contract.yaml")
    assert code == 0
    assert [line.split("  ")[0] for line in shown.splitlines()] == ["looser", "different output"]
    assert diff(tmp_path / "x", tmp_path / "x") == (0, "The two contracts are the same.\n")


def test_a_contract_is_compared_with_a_version_in_git(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)  # noqa: S607 git is found on PATH

    git("init", "-q")
    write(tmp_path / "x", "preprocess: [steps.f]\n")
    (tmp_path / "x" / "steps.py").write_text("def f(rows):\n    return rows\n")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "x" / "steps.py").write_text("def f(rows):\n    return rows.head(1)\n")
    code, shown = diff("HEAD:x", "x", "--contracts", tmp_path)
    assert (code, "steps.py is different" in shown) == (0, True)
    code, shown = diff("HEAD:y", "x", "--contracts", tmp_path)
    assert (code, "git has no contract HEAD:y" in shown) == (2, True)
    assert diff("--output=z:x", "x", "--contracts", tmp_path)[0] == 2
