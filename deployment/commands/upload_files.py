"""Finds the files that `sluice upload` uploads: given files, files in folders, matches of patterns, and members of ZIP
files.

A file keeps its path relative to the given folder. The members of a ZIP file keep their paths, in a folder that is
named after the ZIP file. However, if `x.csv.zip` has the single member `x.csv`, it is uploaded as `x.csv`. Each member
is decompressed while it is uploaded, so it needs no disk space and little memory.
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
MAX_RATIO = 200  # unpacked size divided by packed size; real tables reach 10 to 50
_RATIO_FROM_BYTES = 100 * 1024**2  # for smaller unpacked sizes, the ratio does not matter
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")
_ENCRYPTED = 0x1
_DAMAGED = (BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error, LZMAError)
_DEFAULT_CONTRACT = "default"


class FileUnusable(TerminalError):
    """A file does not exist, is not a regular file, cannot be read, has a name that is not valid UTF-8, or changed
    during the upload; or the given paths contain no file."""


class FilesCollide(TerminalError):
    """Two of the files would get the same object key, so one would replace the other."""


class ArchiveUnusable(TerminalError):
    """A ZIP file cannot be read: it is damaged, encrypted, or compressed with a method that Python does not support."""


class ArchiveUnsafe(TerminalError):
    """A ZIP file is too large when unpacked, has too many members, or has a member that is an archive or a link, or has
    an unsafe path."""


class DatasetUnknown(TerminalError):
    """The dataset given with --dataset has no contract."""


@dataclass
class LocalFile:
    """A file to upload: a local file, or a member of a local ZIP file."""

    path: Path  # the file or, for a member, the ZIP file
    name: str  # the path below the dataset's folder in the landing bucket
    # the names of the folders and the ZIP file that contain it, beginning with the given folder, innermost last
    folders: tuple[str, ...]
    size_bytes: int  # the unpacked size
    body: str | Member  # the file's path, or a reader of the member
    # called with the number of bytes uploaded since the last call
    on_bytes: Callable[[int], None] = field(default=lambda _: None)


class Member:
    """Reads a member of a ZIP file, and opens it at the first read. Several threads may read members of the same ZIP
    file."""

    def __init__(self, archive: ZipFile, info: ZipInfo) -> None:
        self._archive, self._info = archive, info
        self._file: IO[bytes] | None = None

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` unpacked bytes; -1 means all that remain. Raise ArchiveUnusable if the member is
        damaged, or compressed with a method that Python does not support."""
        try:
            self._file = self._file or self._archive.open(self._info)
            return self._file.read(size)
        except _DAMAGED as error:
            raise ArchiveUnusable(f"{self._archive.filename}: member {self._info.filename!r}: {error}") from error


def files_to_upload(given: Iterable[str], is_ignored: Callable[[str], bool]) -> tuple[list[LocalFile], int]:
    """Return the files to upload, and the number of files left out because the stack ignores their names.

    Args:
        given: paths of files, folders and ZIP files, and patterns such as `data/*.csv`.
        is_ignored: returns whether the stack ignores a file, given its path below the dataset's folder.

    Raises:
        FileUnusable, ArchiveUnusable, ArchiveUnsafe: a file or ZIP file cannot be uploaded.
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
    """Raise FilesCollide if an object key occurs more than once."""
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise FilesCollide(
            f"{len(twice):,} names occur more than once, such as {twice[0]}, so one file would replace the other; "
            "upload the folder that contains both, or upload one after the other"
        )


def _paths(given: str) -> list[Path]:
    """Return the files that match a pattern. If `given` is an existing path or contains no wildcard, return it as the
    only path."""
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
    """Raise FileUnusable if a file cannot be read, is not a regular file, or has a name that cannot be used in an
    object key."""
    if file.path.is_dir():
        raise FileUnusable(
            f"{file.path} is a link to a folder, and such links are not followed: give that folder itself"
        )
    if not file.path.is_file():
        raise FileUnusable(f"{file.path} is not a regular file, or is a link whose target does not exist")
    if not os.access(file.path, os.R_OK):
        raise FileUnusable(f"{file.path} cannot be read")
    try:
        file.name.encode()
    except UnicodeEncodeError:
        raise FileUnusable(f"{file.name!a} is not valid UTF-8, which S3 requires; rename the file") from None


# --- ZIP files --------------------------------------------------------------------------------------------------------


def _members(path: Path, name: Path, folders: tuple[str, ...]) -> Iterator[LocalFile]:
    """Yield the members of a ZIP file; `name` is the ZIP file's name without the extension."""
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
    """Raise ArchiveUnsafe or ArchiveUnusable if a ZIP file must not be unpacked. The sizes in the members' headers can
    be trusted, because Python reads no more of a member than its header declares."""
    if len(members) > MAX_MEMBERS:
        raise ArchiveUnsafe(f"{path} has {len(members):,} members, but at most {MAX_MEMBERS:,} are allowed: unpack it")
    size_bytes, packed_bytes = sum(info.file_size for info in members), sum(info.compress_size for info in members)
    if size_bytes > MAX_UNPACKED_BYTES:
        raise ArchiveUnsafe(
            f"{path} unpacks to {size_bytes / 1024**3:,.1f} GiB, but at most {MAX_UNPACKED_BYTES // 1024**3} GiB are "
            "allowed in one ZIP file: unpack it"
        )
    if size_bytes > max(_RATIO_FROM_BYTES, packed_bytes * MAX_RATIO):
        raise ArchiveUnsafe(f"{path} unpacks to more than {MAX_RATIO} times its size, which no real table does")
    for info in members:
        if fault := _fault_of(info):
            raise ArchiveUnsafe(f"{path}: member {info.filename!r} {fault}")
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveUnusable(f"{path}: member {info.filename!r} is encrypted; unpack it and upload the files")


def _fault_of(info: ZipInfo) -> str:
    """Return what is wrong with a ZIP file's member, as a predicate such as "is a link", or "" if it can be
    uploaded."""
    name = info.filename
    parts = PurePosixPath(name).parts
    if "\\" in name or ":" in name or name.startswith("/") or ".." in parts:
        return "has a path outside the ZIP file"
    if not parts:
        return "has no name"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if name.lower().endswith(_ARCHIVES):
        return "is itself an archive; unpack the outer one"
    return ""


# --- datasets ---------------------------------------------------------------------------------------------------------


def datasets(contracts: Path, published: Iterable[str] = ()) -> list[str]:
    """Return the sorted names of all datasets, except `default`, that have a contract in the folder `contracts` or a
    published contract."""
    found = {*published, *(path.parent.name for path in contracts.glob("*/contract.yaml"))}
    return sorted(found - {_DEFAULT_CONTRACT})


def require_dataset(named: str, known: Sequence[str]) -> None:
    """Raise DatasetUnknown if the dataset `named` is not one of the `known` datasets."""
    if named not in known:
        raise DatasetUnknown(
            f"There is no contract for dataset {named!r}. `sluice contract new` proposes one; without --dataset, "
            f"the default contract applies. Known datasets: {', '.join(known)}{did_you_mean(named, known)}"
        )


def dataset_of(file: LocalFile, known: Iterable[str]) -> str | None:
    """Return the dataset that a file belongs to, according to its name and its folders' names; None if none matches.

    A file belongs to a dataset if its name begins with the words of the dataset's name. If the file's name matches no
    dataset, its folders' names are tried, innermost first. Case and the characters between words do not matter, so
    la-riots.csv belongs to la_riots. If several datasets match a name, the one with the longest name is returned.
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
