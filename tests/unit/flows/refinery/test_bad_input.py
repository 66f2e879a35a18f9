"""Nothing is published from a file that is truncated or fills the disk, and no block boundary changes a row."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from flows.refinery.read.partition import Limits
from flows.refinery.read.rejections import CompressionBroken, RecordTooLong, UnclosedQuote
from flows.refinery.refine import Refined, refine_file
from flows.refinery.validate import judged_file
from tests.unit.flows.refinery.tables import a_contract, good_of

SMALL = Limits(max_block_bytes=1 << 16)
COLUMNS = {"id": "integer", "text": "string"}
ROWS = [(number, ("ü€😀" * (number % 7)) + "x" * (number % 5) + "\n" * (number % 2)) for number in range(12_000)]


def refined(folder: Path, content: bytes, **contract: Any) -> Refined:
    (folder / "upload").write_bytes(content)
    used = a_contract(columns=COLUMNS, format={"missing_values": []}, **contract)
    return refine_file(folder / "upload", used, folder, limits=SMALL)


def as_csv(rows: list[tuple[int, str]] = ROWS) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([list(COLUMNS), *rows])
    return text.getvalue().encode()


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("data-*"))


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("form", ["utf-8", "utf-16-le", "JSON Lines"])
def test_a_block_that_begins_inside_a_character_or_a_quoted_field_changes_no_row(
    tmp_path: Path, form: str, shift: int
) -> None:
    rows = [(number, "y" * shift + text) for number, text in ROWS]
    content = as_csv(rows)
    if form == "JSON Lines":
        content = "".join(f"{json.dumps({'id': n, 'text': t}, ensure_ascii=False)}\n" for n, t in rows).encode()
    elif form != "utf-8":
        content = b"\xff\xfe" + content.decode().encode(form)
    assert len(content) > 3 * 65_536
    assert good_of(refined(tmp_path, content)).to_pydict() == {
        "id": [number for number, _ in rows],
        "text": [text for _, text in rows],
    }


def test_a_compressed_file_that_breaks_off_after_many_rows_leaves_no_output(tmp_path: Path) -> None:
    content = gzip.compress(as_csv())
    with pytest.raises(CompressionBroken):
        refined(tmp_path, content[: len(content) - 9])
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("tail", "error"), [(b'1,"open\n' + b"2,b\n" * 9, UnclosedQuote), (b"1," + b"x" * 300_000 + b"\n", RecordTooLong)]
)
def test_a_record_without_an_end_after_many_rows_leaves_no_output(
    tmp_path: Path, tail: bytes, error: type[Exception]
) -> None:
    (tmp_path / "upload").write_bytes(as_csv() + tail)
    limits = Limits(max_block_bytes=1 << 16, max_record_bytes=200_000)
    with pytest.raises(error):
        refine_file(tmp_path / "upload", a_contract(columns=COLUMNS), tmp_path, limits=limits)
    assert written(tmp_path) == []


def test_written_rows_are_deleted_if_the_file_is_rejected_at_its_end(tmp_path: Path) -> None:
    rejected = refined(tmp_path, as_csv(), expectations=[{"expect_table_row_count_to_equal": {"value": 1}}])
    assert [reason.code for reason in rejected.rejected] == ["expect_table_row_count_to_equal"]
    assert (rejected.outputs, written(tmp_path)) == ((), [])


def test_a_failed_rule_takes_precedence_over_a_failed_step(tmp_path: Path) -> None:
    step = {"map_values": {"column": "text", "mapping": {"x": "y"}, "unmapped": "fail"}}
    by_step = refined(tmp_path, as_csv(), preprocess=[step])
    assert [(reason.code, reason.part) for reason in by_step.rejected] == [("step_failed", "preprocess")]
    by_rule = refined(
        tmp_path, as_csv(), preprocess=[step], expectations=[{"expect_table_row_count_to_equal": {"value": 1}}]
    )
    assert [reason.code for reason in by_rule.rejected] == ["expect_table_row_count_to_equal"]
    assert by_rule.checks[-1].observed == len(ROWS)
    assert written(tmp_path) == []


@pytest.mark.parametrize("name", ["data-0000-0", "quarantine-0", "waiting/000000.arrow"])
def test_a_full_disk_does_not_reject_the_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged_file, "_IN_MEMORY_BYTES", 0)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to("/dev/full")
    unique = [{"expect_column_values_to_be_unique": {"column": "id"}}]
    with pytest.raises(OSError, match=r".") as raised:
        refined(tmp_path, as_csv([*ROWS, *ROWS[:9]]), expectations=unique)
    assert raised.value.errno == errno.ENOSPC
