"""Runs tasks with the code of the image that was pushed to MiniStack's registry. Without Docker, MiniStack cannot run
an image.

Only the image's `/app` is used; Python and its packages are those of this machine. A Docker engine runs the whole
image.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployment.local.emulator.containers import Client, NotFound

_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/"
    r"(?P<repository>[^:@]+)(:(?P<tag>[\w.-]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_CODE = "app/"


def install(state: Path) -> None:
    """Run tasks with the code from MiniStack's registry, unless a Docker engine runs them."""
    from ministack.services import ecs

    client = ecs._get_docker()
    if isinstance(client, Client):
        client.containers.code_of = code_in(state / "cloud" / "images")


def code_in(folder: Path) -> Callable[[str], Path | None]:
    """Return a function that maps the URI of an image to the folder with its code.

    The function returns None for an image in another registry; the project's folder is then used. It raises NotFound if
    the image was not pushed.

    Args:
        folder: the folder into which the code of each digest is unpacked once.
    """

    def code_of(image: str) -> Path | None:
        address = _ECR.fullmatch(image)
        if address is None:
            return None
        key = (address["account"], address["region"], address["repository"])
        digest, manifest = _manifest(key, address["digest"], address["tag"] or "latest")
        if manifest is None:
            raise NotFound(f"CannotPullContainerError: {image}: not found")
        unpacked = folder / digest.removeprefix("sha256:")[:32]
        if not unpacked.exists():
            _unpack(key, json.loads(manifest), unpacked)
        return unpacked / _CODE

    return code_of


def _manifest(key: tuple[str, str, str], digest: str | None, tag: str) -> tuple[str, bytes | None]:
    from ministack.services import ecr

    if digest is None:
        images: list[dict[str, Any]] = dict(ecr._images.all_items()).get(key, [])
        digest = next((image["imageDigest"] for image in images if tag in image.get("imageTags", [])), "")
    return digest, dict(ecr._manifest_blobs.all_items()).get(key, {}).get(digest)


def _unpack(key: tuple[str, str, str], manifest: dict[str, Any], unpacked: Path) -> None:
    from ministack.services import ecr

    blobs = dict(ecr._layer_blobs.all_items()).get(key, {})
    partial = unpacked.with_suffix(".partial")
    (partial / _CODE).mkdir(parents=True, exist_ok=True)
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blobs[layer["digest"]])) as archive:
            members = [member for member in archive if member.name.startswith(_CODE) and member.isfile()]
            archive.extractall(partial, members, filter="data")
    partial.rename(unpacked)
