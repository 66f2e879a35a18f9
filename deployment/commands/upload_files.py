"""What `sluice upload` uploads: files, the files of folders and patterns, and the members of ZIP files.

A file keeps its path below the folder that was given. The members of a ZIP file keep their paths, in a folder named as
the ZIP file is; `x.csv.zip` with the member `x.csv` only is uploaded as that file. Each member is decompressed while it
is sent, so it needs no disk and little memory.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

from flows.refinery.errors import TerminalError
from flows.refinery.suggestions import did_you_mean

MAX_MEMBERS = 1_000
MAX_UNPACKED_BYTES = 20 * 1024**3
MAX_RATIO = 200  # tables reach 10 to 50
_RATIO_FROM_BYTES = 100 * 1024**2  # what is smaller harms nobody
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")
_ENCRYPTED = 0x1
_DAMAGED = (BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error, LZMAError)
_DEFAULT_CONTRACT = "default"


class FileUnusable(TerminalError):
    """A file to upload does not exist, cannot be read, was changed meanwhile, or is no file; or there is none."""


class FilesCollide(TerminalError):
    """Two of the files would get the same key, so that one would replace the other."""


class ArchiveUnusable(TerminalError):
    """A ZIP file cannot be read: it is damaged, encrypted, or compressed in a way that Python does not know."""


class ArchiveUnsafe(TerminalError):
    """A ZIP file unpacks to too much or too many files, or has archives, links or paths that lead out of it."""


class DatasetUnknown(TerminalError):
    """The named dataset has no contract."""


@dataclass
class LocalFile:
    """One file to upload."""

    path: Path  # where it is; of a member, the ZIP file
    name: str  # its path below the dataset's folder in the landing bucket
    # the folders that it is in, as far as they were given, and its ZIP file; the innermost last
    folders: tuple[str, ...]
    size_bytes: int  # its size
    body: str | Member  # what is sent: its path, or a reader of the member
    # called with the number of bytes that were sent since
    on_bytes: Callable[[int], None] = field(default=lambda _: None)


class Member:
    """Reads a member of a ZIP file, which is opened at the first read. Threads may read members of one ZIP file."""

    def __init__(self, archive: ZipFile, info: ZipInfo) -> None:
        self._archive, self._info = archive, info
        self._file: IO[bytes] | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes. Raise ArchiveUnusable if the ZIP file is damaged there, or compressed in a way that
        Python does not know."""
        try:
            self._file = self._file or self._archive.open(self._info)
            return self._file.read(size)
        except _DAMAGED as error:
            raise ArchiveUnusable(f"{self._archive.filename}: member {self._info.filename!r}: {error}") from error


def files_to_upload(given: Iterable[str], is_ignored: Callable[[str], bool]) -> tuple[list[LocalFile], int]:
    """Return the files of what was given, and how many others have names that the stack ignores.

    Args:
        given: paths of files, folders and ZIP files, and patterns such as `data/*.csv`.
        is_ignored: whether a file of this path below the dataset's folder would be ignored.

    Raises:
        FileUnusable, ArchiveUnusable, ArchiveUnsafe
    """
    try:
        found = [file for one in given for path in _paths(one) for file in _expanded(path)]
    except OSError as error:
        raise FileUnusable(f"{error.filename!r} cannot be read: {error.strerror}") from error
    kept = [file for file in found if not is_ignored(file.name)]
    if not found:
        raise FileUnusable(f"{', '.join(given)}: there is no file to upload")
    for file in kept:
        _require_usable(file)
    return kept, len(found) - len(kept)


def require_different_keys(keys: Sequence[str]) -> None:
    """Raise FilesCollide where a key is there twice."""
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise FilesCollide(
            f"{len(twice):,} names are there several times, such as {twice[0]}: one file would replace the other; "
            "upload the folder above both, or one after the other"
        )


def _paths(given: str) -> list[Path]:
    """Return the paths that a pattern matches; a path that exists is none."""
    if Path(given).exists() or not glob.has_magic(given):
        return [Path(given)]
    matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    return [path for path in map(Path, matches) if path.is_file()]


def _expanded(path: Path) -> Iterator[LocalFile]:
    if path.is_dir():
        for folder, below, names in os.walk(path, onerror=_raise):
            below.sort()
            inside = Path(folder).relative_to(path)
            links = [name for name in below if (Path(folder) / name).is_symlink()]  # os.walk does not follow them
            for name in sorted([*names, *links]):
                yield from _file(Path(folder) / name, inside / name, (path.resolve().name, *inside.parts))
    elif path.is_file():
        yield from _file(path, Path(path.name), (path.parent.name,))
    else:
        raise FileUnusable(f"{path} is neither a file nor a folder" if path.exists() else f"{path} does not exist")


def _file(path: Path, name: Path, folders: tuple[str, ...]) -> Iterator[LocalFile]:
    is_file = path.is_file()
    if is_file and path.suffix.lower() == ".zip":
        yield from _members(path, name.with_suffix(""), folders)
    else:
        yield LocalFile(path, name.as_posix(), folders, path.stat().st_size if is_file else 0, str(path))


def _raise(error: OSError) -> None:
    raise error


def _require_usable(file: LocalFile) -> None:
    """Raise FileUnusable for what is no readable file, or has a name that no key can have."""
    if file.path.is_dir():
        raise FileUnusable(
            f"{file.path} is a link to a folder, and those are not followed: give the folders one by one"
        )
    if not file.path.is_file():
        raise FileUnusable(f"{file.path} is no file, or a link that leads nowhere")
    if not os.access(file.path, os.R_OK):
        raise FileUnusable(f"{file.path} cannot be read")
    try:
        file.name.encode()
    except UnicodeEncodeError:
        raise FileUnusable(f"{file.name!a}: the name is not UTF-8, as that of an object must be: rename it") from None


# --- ZIP files --------------------------------------------------------------------------------------------------------


def _members(path: Path, name: Path, folders: tuple[str, ...]) -> Iterator[LocalFile]:
    """Yield the members of a ZIP file; `name` is its own without the ending."""
    try:
        archive = ZipFile(path)  # its members keep it open
    except _DAMAGED as error:
        raise ArchiveUnusable(f"{path}: {error}") from error
    members = [info for info in archive.infolist() if not info.filename.endswith("/")]  # is_dir() fails without a name
    _require_safe(path, members)
    is_one_file = [info.filename for info in members] == [name.name]
    for info in members:
        inside = PurePosixPath(info.filename)
        key = name if is_one_file else name / inside
        folder = (*folders, name.name, *inside.parts[:-1])
        yield LocalFile(path, key.as_posix(), folder, info.file_size, Member(archive, info))


def _require_safe(path: Path, members: Sequence[ZipInfo]) -> None:
    """Raise ArchiveUnsafe or ArchiveUnusable for a ZIP file that is not unpacked. Python reads no more of a member
    than the size that its header declares."""
    if len(members) > MAX_MEMBERS:
        raise ArchiveUnsafe(f"{path} has {len(members):,} members; at most {MAX_MEMBERS:,} are uploaded: unpack it")
    size_bytes, packed_bytes = sum(info.file_size for info in members), sum(info.compress_size for info in members)
    if size_bytes > MAX_UNPACKED_BYTES:
        raise ArchiveUnsafe(
            f"{path} unpacks to {size_bytes / 1024**3:,.1f} GiB; at most {MAX_UNPACKED_BYTES // 1024**3} GiB are "
            "uploaded from one ZIP file: unpack it"
        )
    if size_bytes > max(_RATIO_FROM_BYTES, packed_bytes * MAX_RATIO):
        raise ArchiveUnsafe(f"{path} unpacks to more than {MAX_RATIO} times its size, as no table does")
    for info in members:
        if fault := _fault_of(info):
            raise ArchiveUnsafe(f"{path}: member {info.filename!r} {fault}")
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveUnusable(f"{path}: member {info.filename!r} is encrypted; unpack it and upload the files")


def _fault_of(info: ZipInfo) -> str:
    """Return why a member is not uploaded; "" if it is."""
    name = info.filename
    parts = PurePosixPath(name).parts
    if "\\" in name or ":" in name or name.startswith("/") or ".." in parts:
        return "names a path outside of the ZIP file"
    if not parts:
        return "has no name"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if name.lower().endswith(_ARCHIVES):
        return "is an archive itself; unpack the outer one"
    return ""


# --- datasets ---------------------------------------------------------------------------------------------------------


def datasets(contracts: Path, published: Iterable[str] = ()) -> list[str]:
    """Return the datasets that have a contract in a folder or a published one, without the default one."""
    found = {*published, *(path.parent.name for path in contracts.glob("*/contract.yaml"))}
    return sorted(found - {_DEFAULT_CONTRACT})


def require_dataset(named: str, known: Sequence[str]) -> None:
    """Raise DatasetUnknown when no contract has this name."""
    if named not in known:
        raise DatasetUnknown(
            f"There is no contract for dataset {named!r}: `sluice contract new` proposes one, and without --dataset "
            f"the default contract applies; known: {', '.join(known)}{did_you_mean(named, known)}"
        )


def dataset_of(file: LocalFile, known: Iterable[str]) -> str | None:
    """Return a file's dataset: the one whose name the file's name starts with, else that of the innermost such folder.

    Case does not matter, and all signs between words are alike: la-riots.csv is of la_riots. The longest name counts.
    """
    by_length = sorted(known, key=len, reverse=True)
    for name in (file.name.rsplit("/", 1)[-1], *reversed(file.folders)):
        for dataset in by_length:
            if f"{words_of(name)}_".startswith(f"{words_of(dataset)}_"):
                return dataset
    return None


def words_of(name: str) -> str:
    """Return a name in lower case, with one underscore between its words."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
