"""The container image of a deployment: named by the sources it is built from, built and pushed once, used by digest.

docker, podman or buildah builds it; which one is there is found out by asking. The tag is a hash of everything that the
Dockerfile copies, so an image that was pushed before is found again and an interrupted deployment does not build twice.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployment import PROJECT_ROOT
from flows.refinery.errors import TerminalError, TransientError

DOCKERFILE = Path("container/Dockerfile")
ENGINES = ("docker", "podman", "buildah")
_PLATFORMS = {"X86_64": "linux/amd64", "ARM64": "linux/arm64"}
_COPY = re.compile(r"^COPY +(?!--from)(?P<paths>.+)$", re.MULTILINE)
_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>[^:@]+)"
    r"(:(?P<tag>[\w.-]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_TAG_LENGTH = 24
_LINES_SHOWN = 12
_ASK_SECONDS = 30


class ContainerEngineMissing(TerminalError):
    """Neither docker (with its daemon running), podman nor buildah is on this machine."""


class ImageBuildFailed(TerminalError):
    """The engine could not build the image; the message holds the end of its output."""


class ImagePushRefused(TransientError):
    """The registry did not take the image; the message holds the end of the engine's output."""


class ImageNotPushed(TerminalError):
    """The image that was named is not in its repository."""


class ImageElsewhere(TerminalError):
    """The image that was named lies in a repository of ECR that is not the stack's, which its tasks may not read."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that builds and pushes images.

    Attributes:
        name: docker, podman or buildah.
        path: where it is.
    """

    name: str
    path: str

    def run(self, *arguments: str, secret: str = "") -> list[str]:
        """Run it to its end, and return its output's lines.

        Args:
            arguments: the command and its options.
            secret: given on standard input, so that no process list shows it.

        Raises:
            subprocess.CalledProcessError: it failed; `output` holds the last lines.
        """
        done = subprocess.run(
            [self.path, *arguments],
            cwd=PROJECT_ROOT,
            input=secret,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        lines = done.stdout.splitlines()
        if done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, arguments[0], "\n".join(lines[-_LINES_SHOWN:]))
        return lines


def find_engine(names: Iterable[str] = ENGINES) -> Engine:
    """Return the first engine that is there and answers.

    Raises:
        ContainerEngineMissing: there is none.
    """
    silent = []
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        # docker is a client: without its daemon it builds nothing.
        asked = [path, "info"] if name == "docker" else [path, "--version"]
        try:
            answered = subprocess.run(asked, capture_output=True, timeout=_ASK_SECONDS, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            answered = False
        if answered:
            return Engine(name, path)
        silent.append(name)
    found = f" ({', '.join(silent)} is installed and does not answer: is its daemon running?)" if silent else ""
    raise ContainerEngineMissing(
        f"there is no docker, podman or buildah to build the image with{found}; install one, or give --image with the "
        "address of an image that CI pushed"
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is built from.

    Attributes:
        architecture: X86_64 or ARM64, as the template's TaskCpuArchitecture says it.
        build_arguments: the Dockerfile's ARGs, such as BASE_IMAGE.
        root: the folder that is the build's context.
    """

    architecture: str
    build_arguments: Mapping[str, str]
    root: Path = PROJECT_ROOT

    @property
    def tag(self) -> str:
        """Return the image's tag: a hash of the files, the arguments and the architecture."""
        told = hashlib.sha256(self.architecture.encode())
        for name, value in sorted(self.build_arguments.items()):
            told.update(f"\0{name}={value}".encode())
        for path in self._files():
            told.update(f"\0{path.relative_to(self.root).as_posix()}\0".encode())
            told.update(hashlib.sha256(path.read_bytes()).digest())
        return f"src-{told.hexdigest()[:_TAG_LENGTH]}"

    def _files(self) -> Iterator[Path]:
        """Yield the files that decide what is in the image: the Dockerfile, and what it copies."""
        dockerfile = self.root / DOCKERFILE
        yield dockerfile
        for copied in _COPY.finditer(dockerfile.read_text(encoding="utf-8")):
            for source in copied["paths"].split()[:-1]:
                path = self.root / source
                found = sorted(path.rglob("*")) if path.is_dir() else [path]
                yield from (one for one in found if one.is_file() and "__pycache__" not in one.parts)


def repository_name(stack_name: str) -> str:
    """Return the name of the repository that the stack makes."""
    return f"{stack_name}/drain"


def find_repository(ecr: Any, stack_name: str) -> str | None:
    """Return the address of the stack's repository, None while there is none."""
    try:
        found = ecr.describe_repositories(repositoryNames=[repository_name(stack_name)])["repositories"]
    except ecr.exceptions.RepositoryNotFoundException:
        return None
    return str(found[0]["repositoryUri"])


def find_digest(ecr: Any, repository: str, tag: str) -> str | None:
    """Return the digest of a pushed image, None where there is no image of this tag."""
    try:
        found = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        return None
    return str(found[0]["imageDigest"]) if found else None


def check_repository(uri: str, stack_name: str, account_id: str, region: str) -> None:
    """Make sure that the stack's tasks may pull the image: of ECR they may read the stack's own repository only.

    An image of any other registry is taken as it is; whether it can be pulled, nobody knows before a task starts.

    Raises:
        ImageElsewhere: it lies in another repository, account or region.
    """
    parts = _ECR.fullmatch(uri)
    own = repository_name(stack_name)
    if parts and (parts["account"], parts["region"], parts["repository"]) != (account_id, region, own):
        raise ImageElsewhere(
            f"the image {uri} would deploy and never run, since the stack's tasks may pull from the repository {own} "
            f"of account {account_id}, region {region}, and no other of ECR: push it there, or leave --image out to "
            "build it here"
        )


def check_pushed(ecr: Any, uri: str, account_id: str, region: str) -> str:
    """Return the address of an image by its digest, once it is sure that the image is there.

    An image outside of this account's registry cannot be asked for, and its address is returned as it is.

    Raises:
        ImageNotPushed: the repository has no such image.
    """
    parts = _ECR.fullmatch(uri)
    if parts is None or (parts["account"], parts["region"]) != (account_id, region):
        return uri
    wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"] or "latest"}
    try:
        answer = ecr.describe_images(repositoryName=parts["repository"], imageIds=[wanted])
        found = answer["imageDetails"]
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        found = []
    if not found:
        raise ImageNotPushed(f"there is no image {uri}: push it first, or leave --image out to build it here")
    return f"{uri.partition('@')[0].removesuffix(':' + (parts['tag'] or ''))}@{found[0]['imageDigest']}"


def build(engine: Engine, recipe: Recipe, name: str) -> None:
    """Build the image under `name`.

    Raises:
        ImageBuildFailed: with the end of the engine's output.
    """
    arguments = [f"--build-arg={key}={value}" for key, value in sorted(recipe.build_arguments.items())]
    platform = _PLATFORMS[recipe.architecture]
    try:
        engine.run(
            *("build", "--platform", platform, "-f", str(recipe.root / DOCKERFILE), "-t", name),
            *arguments,
            str(recipe.root),
        )
    except subprocess.CalledProcessError as error:
        raise ImageBuildFailed(f"{engine.name} could not build the image:\n{error.output}") from error


def push(engine: Engine, ecr: Any, repository_uri: str, tag: str) -> None:
    """Push the image that was built as `repository_uri:tag`.

    Raises:
        ImagePushRefused: with the end of the engine's output.
    """
    registry, insecure = _registry_of(ecr, repository_uri)
    login = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(login).decode().partition(":")
    pushed = f"{registry}/{repository_uri.partition('/')[2]}:{tag}"
    options = ["--tls-verify=false"] if insecure and engine.name != "docker" else []  # docker trusts loopback anyway
    try:
        engine.run("login", *options, "--username", user, "--password-stdin", registry, secret=password)
        if pushed != f"{repository_uri}:{tag}":
            engine.run("tag", f"{repository_uri}:{tag}", pushed)
        engine.run("push", *options, pushed)
    except subprocess.CalledProcessError as error:
        raise ImagePushRefused(
            f"{engine.name} {error.cmd} was refused by {registry}; the credentials need ecr:GetAuthorizationToken, "
            f"ecr:InitiateLayerUpload, ecr:UploadLayerPart, ecr:CompleteLayerUpload, ecr:BatchCheckLayerAvailability "
            f"and ecr:PutImage:\n{error.output}"
        ) from error


def _registry_of(ecr: Any, repository_uri: str) -> tuple[str, bool]:
    """Return the registry's host, and whether it speaks plain HTTP: the embedded cloud's own address stands for ECR."""
    endpoint = urlsplit(str(ecr.meta.endpoint_url))
    if (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
        return repository_uri.partition("/")[0], False
    return endpoint.netloc, endpoint.scheme == "http"
