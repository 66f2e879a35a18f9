"""What weighs what in an image."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from container.sizes import compressed_bytes, layers_of, table, weigh

_PACKAGES = "opt/sluice/lib/python3.11/site-packages"


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An image of two layers, as `docker save` writes it."""
    base = tar({"usr/bin/python3": b"p" * 5_000})
    ours = tar(
        {
            f"{_PACKAGES}/numpy/core.py": b"n" * 3_000,
            f"{_PACKAGES}/numpy.libs/libblas.so": b"b" * 9_000,
            f"{_PACKAGES}/numpy-2.4.6.dist-info/RECORD": b"r" * 100,
            f"{_PACKAGES}/numpy/__pycache__/core.cpython-311.pyc": b"c" * 200,
            f"{_PACKAGES}/six.py": b"s" * 10,
            "app/flows/drain_queue.py": b"d" * 20,
        }
    )
    config = {"rootfs": {"diff_ids": ["sha256:base", "sha256:ours"]}}
    path = tmp_path / "image.tar"
    path.write_bytes(
        tar(
            {
                "base.tar": base,
                "ours.tar": ours,
                "config.json": json.dumps(config).encode(),
                "manifest.json": json.dumps([{"Config": "config.json", "Layers": ["base.tar", "ours.tar"]}]).encode(),
            }
        )
    )
    return path


def test_every_file_is_counted_to_its_package_to_the_code_or_to_the_base(archive: Path) -> None:
    sizes = {name: (part.files, part.bytes, part.bytecode_bytes) for name, part in weigh(archive).items()}
    assert sizes == {
        "numpy": (4, 12_300, 200),
        "six": (1, 10, 0),
        "the code of Sluice": (1, 20, 0),
        "the base image, with its library's bytecode": (1, 5_000, 0),
    }


def test_a_layers_compressed_size_is_that_of_its_tar(archive: Path) -> None:
    assert [layer.digest for layer in layers_of(archive)] == ["sha256:base", "sha256:ours"]
    assert 0 < compressed_bytes(archive, "sha256:base") < 5_000


def test_the_table_ends_with_the_sum(archive: Path) -> None:
    assert table(weigh(archive)).splitlines()[-1].endswith("| 7 |")
