"""The plain English linter finds archaic words in what people read, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.linters.plain_english import findings


def words_in(tmp_path: Path, name: str, text: str) -> list[str]:
    path = tmp_path / name
    path.write_text(text)
    return [word for _, word, _ in findings(path)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"""It tells why."""', ["tells"]),
        ('def f() -> None:\n    """Let every line have it."""', ["Let ..."]),
        ("x = 1  # whoever calls", ["whoever"]),
        ('raise ValueError(f"the key {key} lies elsewhere")', ["lies"]),
    ],
)
def test_docstrings_comments_and_messages_are_read(tmp_path: Path, text: str, words: list[str]) -> None:
    assert words_in(tmp_path, "module.py", text) == words


@pytest.mark.parametrize("text", ["told = 1", 'key = "told"', "from told import door", "# Great Expectations"])
def test_names_and_keys_are_not_read(tmp_path: Path, text: str) -> None:
    assert words_in(tmp_path, "module.py", text) == []


def test_every_line_of_a_page_is_read(tmp_path: Path) -> None:
    assert words_in(tmp_path, "page.md", "It stands\nin a file of its own.\n") == ["stands", "of its own"]


def test_a_line_with_a_reason_is_exempt(tmp_path: Path) -> None:
    assert words_in(tmp_path, "module.py", 'TITLE = "it is told"  # plain: quoted from AWS') == []
