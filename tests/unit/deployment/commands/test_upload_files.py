"""`sluice upload` finds the files in folders, patterns and ZIP files, and chooses the right dataset for each."""

import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from blocks.settings import CONTRACTS
from deployment.commands import upload_files
from deployment.commands.upload_files import (
    ArchiveUnsafe,
    ArchiveUnusable,
    DatasetUnknown,
    FilesCollide,
    FileUnusable,
    LocalFile,
    Member,
    dataset_of,
    datasets,
    files_to_upload,
    require_dataset,
    require_different_keys,
)

_KNOWN = ("orders", "orders_eu", "la_riots", "penguins")


def file_named(name: str, *folders: str) -> LocalFile:
    return LocalFile(Path(name), name, folders, 1, name)


def found(*given: Path | str) -> dict[str, tuple[str, ...]]:
    """Return name → folders for the files that would be uploaded."""
    files, _ = files_to_upload(list(map(str, given)), lambda name: name.endswith(".tmp"))
    return {file.name: file.folders for file in files}


def zipped(path: Path, members: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# --- datasets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folders", "dataset"),
    [
        ("penguins.csv", (), "penguins"),
        ("Orders-2026-01.csv", (), "orders"),
        ("orders_of_today.csv.gz", (), "orders"),
        ("orders of today + tomorrow.csv", (), "orders"),
        ("la-riots.csv", (), "la_riots"),
        ("LA_Riots 1992.xlsx", (), "la_riots"),
        ("orders-eu-2026.csv", (), "orders_eu"),
        ("ordersheet.csv", (), None),
        ("something.csv", (), None),
        ("something.csv", ("2026", "orders", "january"), "orders"),
        ("something.csv", ("penguins", "orders"), "orders"),
        ("penguins.csv", ("orders",), "penguins"),
        ("2026/penguins.csv", (), "penguins"),
        ("---", ("",), None),
    ],
)
def test_a_file_belongs_to_the_dataset_that_its_name_or_folder_begins_with(
    name: str, folders: tuple[str, ...], dataset: str | None
) -> None:
    assert dataset_of(file_named(name, *folders), _KNOWN) == dataset


def test_a_mistyped_dataset_is_rejected_with_the_nearest_name() -> None:
    require_dataset("orders", _KNOWN)
    with pytest.raises(DatasetUnknown) as refused:
        require_dataset("ordres", _KNOWN)
    assert "'orders'?" in str(refused.value)


def test_the_default_contract_is_not_a_dataset() -> None:
    known = datasets(CONTRACTS, ["parcels", "default"])
    assert {"orders", "penguins", "parcels"} <= set(known)
    assert "default" not in known


# --- files and folders ------------------------------------------------------------------------------------------


def test_a_file_of_a_folder_keeps_its_path_below_the_folder(tmp_path: Path) -> None:
    for name in ("orders/2026/01.csv", "orders/2026/02.csv", "orders/all.csv", "orders/part.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert found(tmp_path / "orders") == {
        "all.csv": ("orders",),
        "2026/01.csv": ("orders", "2026"),
        "2026/02.csv": ("orders", "2026"),
    }
    assert found(tmp_path / "orders" / "2026" / "01.csv") == {"01.csv": ("2026",)}
    assert list(found(f"{tmp_path}/orders/**/0*.csv")) == ["01.csv", "02.csv"]
    assert files_to_upload([str(tmp_path)], lambda _: True) == ([], 4)


def test_a_name_with_a_bracket_is_a_file_and_not_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").touch()
    assert list(found(tmp_path / "a[1].csv")) == ["a[1].csv"]


@pytest.mark.parametrize("given", ["missing.csv", "*.csv", "folder"])
def test_a_path_without_a_file_is_an_error(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileUnusable):
        found(given)


def test_a_folder_is_rejected_if_an_entry_cannot_be_uploaded_and_is_not_ignored(tmp_path: Path) -> None:
    def make_pipe(place: Path) -> None:
        os.mkfifo(place)

    def make_link_to_a_folder(place: Path) -> None:
        place.symlink_to(tmp_path)

    def make_link_to_nothing(place: Path) -> None:
        place.symlink_to(tmp_path / "nothing")

    def make_a_name_that_is_not_utf_8(place: Path) -> None:
        Path(os.fsdecode(os.fsencode(place.parent) + b"/\xff" + os.fsencode(place.name))).touch()

    makers = (make_pipe, make_link_to_a_folder, make_link_to_nothing, make_a_name_that_is_not_utf_8)
    for number, make in enumerate(makers):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.csv").touch()
        make(folder / "b.tmp")  # ignored, because of its name
        assert list(found(folder)) == ["a.csv"], make
        make(folder / "b.csv")
        with pytest.raises(FileUnusable):
            found(folder)


def test_a_folder_that_cannot_be_read_is_an_error() -> None:
    with TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "inside").mkdir(mode=0)
        (folder / "a.csv").touch()
        for given in (folder, folder / "inside" / "b.csv"):
            with without_privileges(), pytest.raises(FileUnusable):
                found(given)


@contextmanager
def without_privileges() -> Iterator[None]:
    """If the tests run as root, drop root's privileges for the duration of the context."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_two_files_with_the_same_key_are_rejected() -> None:
    require_different_keys(["incoming/a.csv", "incoming/b.csv"])
    with pytest.raises(FilesCollide):
        require_different_keys(["incoming/a.csv", "incoming/b.csv", "incoming/a.csv"])


# --- ZIP files --------------------------------------------------------------------------------------------------


def test_each_member_of_a_zip_is_one_upload_in_a_folder_of_the_zips_name(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "orders.ZIP", {"2026/": "", "2026/a.csv": "x\n1\n", "b.csv": "x\n2\n", "c.tmp": ""})
    assert found(archive) == {
        "orders/2026/a.csv": (tmp_path.name, "orders", "2026"),
        "orders/b.csv": (tmp_path.name, "orders"),
    }
    files, ignored = files_to_upload([str(archive)], lambda name: name.endswith(".tmp"))
    assert ignored == 1
    read = {file.name: file.body.read() for file in files if isinstance(file.body, Member)}
    assert read == {"orders/2026/a.csv": b"x\n1\n", "orders/b.csv": b"x\n2\n"}


def test_a_zip_with_only_the_file_it_is_named_after_is_that_file(tmp_path: Path) -> None:
    assert list(found(zipped(tmp_path / "flights.csv.zip", {"flights.csv": "x\n1\n"}))) == ["flights.csv"]
    assert list(found(zipped(tmp_path / "january.zip", {"data.csv": "x\n1\n"}))) == ["january/data.csv"]


@pytest.mark.parametrize(
    "name",
    ["../a.csv", "a/../../b.csv", "/etc/a.csv", "C:/a.csv", "..\\a.csv", "inner.zip", "inner.tar", "a/B.ZIP", "."],
)
def test_a_zip_with_paths_that_lead_out_of_it_or_with_archives_is_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnsafe):
        found(zipped(tmp_path / "a.zip", {"good.csv": "x\n1\n", name: "x"}))


def test_a_zip_with_a_member_without_a_name_is_rejected(tmp_path: Path) -> None:
    nameless = zipfile.ZipInfo("a")
    nameless.filename = ""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(nameless, "x")
    with pytest.raises(ArchiveUnsafe):
        found(tmp_path / "a.zip")


def test_a_zip_with_a_link_is_rejected(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("passwords.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveUnsafe):
        found(tmp_path / "a.zip")


def test_a_zip_that_unpacks_to_far_more_than_its_size_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = zipped(tmp_path / "zeros.zip", {"a.csv": bytes(2_000_000)})
    assert found(zeros)
    monkeypatch.setattr(upload_files, "_RATIO_FROM_BYTES", 1_000_000)
    with pytest.raises(ArchiveUnsafe):
        found(zeros)


@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_UNPACKED_BYTES"])
def test_a_zip_with_too_much_in_it_is_rejected(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.csv": "x", "b.csv": "y"})
    monkeypatch.setattr(upload_files, limit, 2)
    assert len(found(archive)) == 2
    monkeypatch.setattr(upload_files, limit, 1)
    with pytest.raises(ArchiveUnsafe):
        found(archive)


def test_a_zip_that_is_damaged_or_encrypted_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(ArchiveUnusable):
        found(tmp_path / "no.zip")
    encrypted = zipped(tmp_path / "locked.zip", {"a.csv": "x"})
    content = bytearray(encrypted.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # sets the encryption flag in the entry of the central directory
    encrypted.write_bytes(content)
    with pytest.raises(ArchiveUnusable):
        found(encrypted)


def test_a_member_that_is_damaged_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.csv": "x" * 100}, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"xxxx", b"xyxx", 1))
    files, _ = files_to_upload([str(archive)], lambda _: False)
    (body,) = [file.body for file in files if isinstance(file.body, Member)]
    with pytest.raises(ArchiveUnusable):
        body.read()
