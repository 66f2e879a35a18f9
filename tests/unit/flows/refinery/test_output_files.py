"""When output files go to many folders, the disk contains at most a few full ones, and no row is lost."""

from __future__ import annotations

import hashlib
import os
import random
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from flows.refinery.contract.model import OutputOptions
from flows.refinery.output_files import LEAVE, OutputFile, TakeAway
from flows.refinery.part_seconds import PartSeconds
from flows.refinery.write.outputs import OutputWriter

MAX_FILE_BYTES, FOLDERS, FRAMES, ROWS = 1 << 20, 20, 80, 20
OUTPUT = OutputOptions(max_file_bytes=MAX_FILE_BYTES, partition_by=("folder",))


class Uploads(TakeAway):
    """Takes each output file as an upload would: it reads the rows and then deletes the file."""

    def __init__(self) -> None:
        self.rows: defaultdict[str, list[int]] = defaultdict(list)
        self.files: list[tuple[str, str, str]] = []  # folder, extension, digest
        self.seen: set[tuple[int, int]] = set()  # device and inode of each file

    def take(self, kind: str, file: OutputFile) -> None:
        assert (kind, file.path.stat().st_size) == ("data", file.size_bytes)
        self.read(file)
        self.seen.add(identity(file.path.stat()))
        file.path.unlink()

    def read(self, file: OutputFile) -> None:
        with pq.ParquetFile(file.path) as rows:
            ids = rows.read()["id"].to_pylist()
        assert len(ids) == file.rows
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256
        self.rows[file.folder] += ids
        self.files.append((file.folder, file.extension, file.sha256))


def frames() -> list[pd.DataFrame]:
    """Return frames with rows for every folder. Some folders get more rows than others, but too few to fill a file."""
    some = random.Random(1)
    found = []
    for frame in range(FRAMES):
        folders = [folder for folder in range(FOLDERS) for _ in range(ROWS + folder % 5)]
        ids = [frame * 10_000 + row for row in range(len(folders))]
        notes = [some.randbytes(500).hex() for _ in folders]
        found.append(pd.DataFrame({"id": ids, "folder": folders, "note": notes}))
    return found


def identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def open_files() -> list[tuple[int, int]]:
    """Return (device, inode) for each open file of this process."""
    found = []
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            found.append(identity(os.fstat(int(descriptor.name))))
    return found


def written(folder: Path, given: list[pd.DataFrame]) -> Uploads:
    """Write the frames, and check the size of the files on the disk and the open files after each."""
    uploads = Uploads()
    folder.mkdir()
    with OutputWriter(OUTPUT, folder, {}, PartSeconds(), uploads) as writer:
        for frame in given:
            writer.write(frame)
            on_disk = list(folder.iterdir())
            assert sum(path.stat().st_size for path in on_disk) < 4 * MAX_FILE_BYTES
            uploads.seen.update(identity(path.stat()) for path in on_disk)
            assert sum(file in uploads.seen for file in open_files()) == len(on_disk), "a file was not closed"
        outputs = writer.close()
    for file in outputs:
        if file.path.exists():
            uploads.read(file)
    assert sorted((file.folder, file.extension, file.sha256) for file in outputs) == sorted(uploads.files)
    return uploads


def test_with_many_folders_few_files_are_on_the_disk_and_no_row_is_lost(tmp_path: Path) -> None:
    given = frames()
    uploads = written(tmp_path / "first", given)
    several = {folder for folder, extension, _ in uploads.files if extension == ".1.parquet"}
    assert several, "no series was closed and opened again"
    for folder in range(FOLDERS):
        ids = [number for frame in given for number in frame.loc[frame["folder"] == folder, "id"]]
        assert uploads.rows[f"folder={folder}/"] == ids


def test_the_same_rows_in_many_folders_give_the_same_files(tmp_path: Path) -> None:
    given = frames()
    assert written(tmp_path / "first", given).files == written(tmp_path / "second", given).files


@pytest.mark.parametrize(("partition_by", "files", "groups"), [((), 1, 4), (("folder",), FOLDERS, 1)])
def test_small_frames_are_written_together_because_each_write_takes_memory_until_the_file_is_finished(
    tmp_path: Path, partition_by: tuple[str, ...], files: int, groups: int
) -> None:
    given = frames()[:40]
    with OutputWriter(OutputOptions(partition_by=partition_by), tmp_path, {}, PartSeconds(), LEAVE) as writer:
        for frame in given:
            writer.write(frame)
        outputs = writer.close()
    found = [pq.read_metadata(file.path) for file in outputs]
    assert [each.num_row_groups for each in found] == [groups] * files
    assert sum(each.num_rows for each in found) == sum(map(len, given))
