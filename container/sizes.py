"""Says what weighs what in a built image: for the table in docs/image.md.

    docker save -o image.tar sluice        (or podman save)
    python -m container.sizes image.tar

Sizes are in MB of 10^6 bytes. "Compressed" is by gzip at its usual level, as `docker push` sends layers; a part's share
is found by compressing its files by themselves.
"""

from __future__ import annotations

import argparse
import json
import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_GZIP_LEVEL = 6
_PIECE_BYTES = 2**20
_MB = 1e6
_SITE_PACKAGES = re.compile(r"opt/sluice/lib/python[\d.]+/site-packages/([^/]+)")
# Folders that carry another name than the package that they belong to.
_BELONGS_TO = {"numpy.libs": "numpy", "scipy.libs": "scipy", "yaml": "pyyaml", "_yaml": "pyyaml", "attr": "attrs"}
_SHOWN_PACKAGES = 14


@dataclass(frozen=True)
class Layer:
    """One layer of an image.

    Attributes:
        digest: of its tar, uncompressed, as the image's configuration names it.
        member: where its tar lies in the archive.
    """

    digest: str
    member: str


@dataclass
class Part:
    """What belongs together, and what it weighs."""

    files: int = 0
    bytes: int = 0
    bytecode_bytes: int = 0
    compressed: int = 0
    _compressor: zlib._Compress = field(default_factory=lambda: zlib.compressobj(_GZIP_LEVEL), repr=False)

    def add(self, name: str, content: IO[bytes]) -> None:
        """Weigh one more file."""
        self.files += 1
        for piece in iter(lambda: content.read(_PIECE_BYTES), b""):
            self.bytes += len(piece)
            self.bytecode_bytes += len(piece) if name.endswith(".pyc") else 0
            self.compressed += len(self._compressor.compress(piece))

    def close(self) -> None:
        """Count what the compressor still holds."""
        self.compressed += len(self._compressor.flush())


def layers_of(archive: Path) -> list[Layer]:
    """Return the layers of an image that `docker save` or `podman save` wrote, lowest first."""
    with tarfile.open(archive) as image:
        (manifest,) = _json(image, "manifest.json")
        digests = _json(image, manifest["Config"])["rootfs"]["diff_ids"]
        return [Layer(digest, member) for digest, member in zip(digests, manifest["Layers"], strict=True)]


def compressed_bytes(archive: Path, digest: str) -> int:
    """Return what one layer takes in a registry."""
    (member,) = (layer.member for layer in layers_of(archive) if layer.digest == digest)
    part = Part()
    with tarfile.open(archive) as image:
        part.add(member, _file(image, member))
    part.close()
    return part.compressed


def weigh(archive: Path) -> dict[str, Part]:
    """Return what each package, the code, and the base weigh."""
    parts: dict[str, Part] = defaultdict(Part)
    with tarfile.open(archive) as image:
        for layer in layers_of(archive):
            with tarfile.open(fileobj=_file(image, layer.member)) as content:
                for name, file in _files(content):
                    parts[_part_of(name)].add(name, file)
    for part in parts.values():
        part.close()
    return dict(parts)


def table(parts: dict[str, Part]) -> str:
    """Return a Markdown table, heaviest first; small packages in one line."""
    heaviest_first = sorted(parts.items(), key=lambda item: -item[1].compressed)
    packages = [item for item in heaviest_first if not item[0].startswith("the ")]
    others, rest = packages[_SHOWN_PACKAGES:], Part()
    for _, part in others:
        rest.files, rest.bytes = rest.files + part.files, rest.bytes + part.bytes
        rest.bytecode_bytes += part.bytecode_bytes
        rest.compressed += part.compressed
    shown = [item for item in heaviest_first if item not in others] + [(f"{len(others)} smaller packages", rest)]
    total = Part(
        *(sum(getattr(part, name) for part in parts.values()) for name in ("files", "bytes", "bytecode_bytes")),
        sum(part.compressed for part in parts.values()),
    )
    lines = [
        "| part | compressed, MB | on disk, MB | of that bytecode, MB | files |",
        "| --- | --: | --: | --: | --: |",
    ]
    return "\n".join([*lines, *(_row(name, part) for name, part in shown), _row("**in all**", total)])


def _row(name: str, part: Part) -> str:
    megabytes = (part.compressed / _MB, part.bytes / _MB, part.bytecode_bytes / _MB)
    return f"| {name} | {' | '.join(f'{size:.1f}' for size in megabytes)} | {part.files:,} |"


def _part_of(path: str) -> str:
    package = _SITE_PACKAGES.match(path)
    if package:
        name = re.split(r"-[\d.]+.*dist-info|\.cpython-|\.py$", package[1])[0].lower().replace("_", "-")
        return _BELONGS_TO.get(name, _BELONGS_TO.get(name.replace("-", "_"), name))
    if path.startswith("app/"):
        return "the code of Sluice"
    return "the base image, with its library's bytecode"


def _files(content: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in content:
        file = content.extractfile(member) if member.isfile() else None
        if file is not None:
            yield member.name.removeprefix("./"), file


def _file(archive: tarfile.TarFile, member: str) -> IO[bytes]:
    file = archive.extractfile(member)  # follows links: podman stores a layer that comes twice once
    if file is None:
        raise FileNotFoundError(f"{member} is not in the archive")
    return file


def _json(archive: tarfile.TarFile, member: str) -> dict[str, object]:
    content: dict[str, object] = json.load(_file(archive, member))
    return content


def main() -> None:
    """Print the table of one archive."""
    parser = argparse.ArgumentParser(prog="python -m container.sizes", description=__doc__)
    parser.add_argument("archive", type=Path, help="what `docker save -o` wrote")
    print(table(weigh(parser.parse_args().archive)))  # noqa: T201 (a command's output)


if __name__ == "__main__":
    main()
