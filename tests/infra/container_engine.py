"""A stand-in for the docker command, which builds images without running anything and pushes them with the registry
protocol.

`build` stores the files that the Dockerfile copies to /app as a layer. `push` uploads the layer, the configuration and
the manifest, as docker does. The name of every command is appended to `store/commands`. The environment variable
ENGINE_FAILS names a command that fails, and ENGINE_STOPS one that writes the file `store/stopped` and then hangs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Any

_STORE = Path(__file__).resolve().parent / "store"
_CONFIGURATION = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'


def main(command: str, *arguments: str) -> int:
    """Run a command such as `build`, and return its exit code. An unknown command does nothing and succeeds."""
    _STORE.mkdir(exist_ok=True)
    with (_STORE / "commands").open("a") as log:
        log.write(f"{command}\n")
    if command == os.environ.get("ENGINE_STOPS"):
        (_STORE / "stopped").touch()
        time.sleep(600)
    if command == os.environ.get("ENGINE_FAILS"):
        print("denied: the registry does not like this image")
        return 1
    if command == "build":
        _build(*arguments)
    elif command == "tag":
        _layer(arguments[1]).write_bytes(_layer(arguments[0]).read_bytes())
    elif command == "push":
        _push(arguments[-1])
    elif command == "login":
        assert sys.stdin.read(), "no password came"
    return 0


def _build(*arguments: str) -> None:
    options, context = dict(zip(arguments[:-1:2], arguments[1::2], strict=False)), Path(arguments[-1])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for line in Path(options["-f"]).read_text().splitlines():
            words = line.split()
            if words[:1] == ["COPY"] and words[-1].startswith("/app/"):
                archive.add(context / words[1], words[-1].strip("/"), filter=_plain)
    _layer(options["-t"]).write_bytes(gzip.compress(buffer.getvalue(), mtime=0))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.mtime = 0
    return None if "__pycache__" in member.name else member


def _layer(name: str) -> Path:
    return _STORE / hashlib.sha256(name.encode()).hexdigest()


def _push(name: str) -> None:
    address, _, tag = name.rpartition(":")
    host, _, repository = address.partition("/")
    base = f"http://{host}/v2/{repository}"
    layer = _layer(name).read_bytes()
    described: list[dict[str, Any]] = []
    for kind, blob in (("container.image.v1+json", _CONFIGURATION), ("image.rootfs.diff.tar.gzip", layer)):
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        begun = _send("POST", f"{base}/blobs/uploads/", b"", "application/json")
        joint = "&" if "?" in begun["Location"] else "?"
        location = begun["Location"] if "://" in begun["Location"] else f"http://{host}{begun['Location']}"
        _send("PUT", f"{location}{joint}digest={digest}", blob, "application/octet-stream")
        described.append(
            {"mediaType": f"application/vnd.docker.{kind}", "size": len(blob), "digest": digest},
        )
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": described[0],
        "layers": described[1:],
    }
    _send("PUT", f"{base}/manifests/{tag}", json.dumps(manifest).encode(), str(manifest["mediaType"]))


def _send(method: str, url: str, body: bytes, kind: str) -> Any:
    request = urllib.request.Request(  # noqa: S310 (the registry on this machine)
        url, data=body, method=method, headers={"Content-Type": kind}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return answer.headers


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
