"""Builds and pushes a deployment's container image, unless it was already built from the same sources, and finds its
digest.

The image is built by the first of docker, podman and buildah that can be used. Its tag contains a hash of its sources,
so an image that was already pushed is found, even if it was built on a different machine or in CI.
"""

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
DEPLOYED = "deployed-"  # the prefix of the tags that the template's lifecycle policy keeps
_TAG_LENGTH = 24
_LINES_SHOWN = 12
_ANSWER_SECONDS = 30


class ContainerEngineMissing(TerminalError):
    """Neither docker (with its daemon running), podman nor buildah can be used on this machine.

    Attributes:
        silent: the engines that are installed but do not respond.
    """

    def __init__(self, silent: Iterable[str]) -> None:
        self.silent = tuple(silent)
        found = f" ({', '.join(self.silent)}: installed, but not responding; is the daemon running?)"
        super().__init__(
            "the image cannot be built, because neither docker, podman nor buildah is available"
            f"{found if self.silent else ''}; install one, or use --image with the URI of an image that was pushed"
        )


class ImageBuildFailed(TerminalError):
    """The image could not be built; the message contains the end of the engine's output."""


class ImagePushRefused(TransientError):
    """The registry rejected the login or the image; the message contains the end of the engine's output."""


class ImageNotPushed(TerminalError):
    """The requested image does not exist in its repository."""


class ImageElsewhere(TerminalError):
    """The requested image is in an ECR repository that does not belong to the stack, so its tasks cannot pull it."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine, which builds and pushes images."""

    name: str  # docker, podman or buildah
    path: str  # of the executable

    def run(self, *arguments: str, secret: str = "") -> None:
        """Run one of the engine's commands, and wait until it ends.

        Args:
            arguments: the command and its options.
            secret: written to standard input, so that no process list shows it.

        Raises:
            subprocess.CalledProcessError: the command failed; `output` contains the last lines of its output.
        """
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(
            [self.path, *arguments], cwd=PROJECT_ROOT, input=secret, text=True, errors="replace", check=False, **streams
        )
        if done.returncode != 0:
            end = "\n".join(done.stdout.splitlines()[-_LINES_SHOWN:])
            raise subprocess.CalledProcessError(done.returncode, arguments[0], end)

    def answers(self) -> bool:
        """Return whether the engine can be used, which for docker requires a running daemon."""
        question = [self.path, "info"] if self.name == "docker" else [self.path, "--version"]
        try:
            return subprocess.run(question, capture_output=True, timeout=_ANSWER_SECONDS, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def find_engine(names: Iterable[str] = ENGINES) -> Engine:
    """Return the first engine that is installed and can be used. Raise ContainerEngineMissing if there is none."""
    installed = [Engine(name, path) for name in names if (path := shutil.which(name))]
    answering = (engine for engine in installed if engine.answers())
    if engine := next(answering, None):
        return engine
    raise ContainerEngineMissing(engine.name for engine in installed)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The files, arguments and architecture that an image is built from."""

    architecture: str  # X86_64 or ARM64, as in the template's parameter TaskCpuArchitecture
    build_arguments: Mapping[str, str]  # the Dockerfile's ARGs, such as BASE_IMAGE
    root: Path = PROJECT_ROOT  # the build context

    @property
    def tag(self) -> str:
        """Return the image's tag, which contains a hash of the files, the arguments and the architecture."""
        content = hashlib.sha256(self.architecture.encode())
        for name, value in sorted(self.build_arguments.items()):
            content.update(f"\0{name}={value}".encode())
        for path in self._files():
            content.update(f"\0{path.relative_to(self.root).as_posix()}\0".encode())
            content.update(hashlib.sha256(path.read_bytes()).digest())
        return f"src-{content.hexdigest()[:_TAG_LENGTH]}"

    def _files(self) -> Iterator[Path]:
        """Yield the files that determine the image's contents: the Dockerfile, and the files that it copies."""
        dockerfile = self.root / DOCKERFILE
        yield dockerfile
        for copied in _COPY.finditer(dockerfile.read_text(encoding="utf-8")):
            for source in copied["paths"].split()[:-1]:
                path = self.root / source
                found = sorted(path.rglob("*")) if path.is_dir() else [path]
                yield from (one for one in found if one.is_file() and "__pycache__" not in one.parts)


def repository_name(stack_name: str) -> str:
    """Return the name of the ECR repository that the stack creates."""
    return f"{stack_name}/drain"


def find_repository(ecr: Any, stack_name: str) -> str | None:
    """Return the URI of the stack's ECR repository; None if it does not exist yet."""
    try:
        found = ecr.describe_repositories(repositoryNames=[repository_name(stack_name)])["repositories"]
    except ecr.exceptions.RepositoryNotFoundException:
        return None
    return str(found[0]["repositoryUri"])


def find_digest(ecr: Any, repository: str, image: Mapping[str, str]) -> str | None:
    """Return the digest of an image; None if the repository does not contain it.

    Args:
        ecr: a boto3 client for ECR.
        image: the image's tag or digest, as in ECR's API: {"imageTag": ...} or {"imageDigest": ...}.
    """
    try:
        found = ecr.describe_images(repositoryName=repository, imageIds=[image])["imageDetails"]
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        return None
    return str(found[0]["imageDigest"]) if found else None


def resolve_image(ecr: Any, uri: str, *, stack_name: str, account_id: str, region: str) -> str:
    """Return the URI, with digest, of an image that was already pushed. A URI outside ECR is returned unchanged.

    In ECR, the stack's tasks may pull only from the stack's own repository. For other registries, whether a task can
    pull the image is known only when a task starts.

    Raises:
        ImageElsewhere: the image is in a different ECR repository, account or region.
        ImageNotPushed: the repository does not contain the image.
    """
    parts, own = _ECR.fullmatch(uri), repository_name(stack_name)
    if parts is None:
        return uri
    if (parts["account"], parts["region"], parts["repository"]) != (account_id, region, own):
        raise ImageElsewhere(
            f"no task could start from the image {uri}, because the stack's tasks may pull only from the ECR "
            f"repository {own} in account {account_id}, region {region}; push the image there, or omit --image"
        )
    wanted = {"imageDigest": parts["digest"]} if parts["digest"] else {"imageTag": parts["tag"] or "latest"}
    digest = find_digest(ecr, own, wanted)
    if digest is None:
        raise ImageNotPushed(f"there is no image {uri}: push it first, or omit --image to build it here")
    return f"{uri.partition('@')[0].removesuffix(':' + (parts['tag'] or ''))}@{digest}"


def keep(ecr: Any, uri: str) -> None:
    """Tag an image in ECR as deployed, so that the repository's lifecycle policy keeps it longer than images that were
    only pushed: docs.aws.amazon.com/AmazonECR/latest/userguide/image-retag.html

    Args:
        ecr: a boto3 client for ECR.
        uri: the image's URI with its digest. A URI without a digest or outside ECR is ignored.
    """
    parts = _ECR.fullmatch(uri)
    if parts is None or not parts["digest"]:
        return
    digest, repository = parts["digest"], parts["repository"]
    tag = f"{DEPLOYED}{digest.removeprefix('sha256:')[:_TAG_LENGTH]}"
    if find_digest(ecr, repository, {"imageTag": tag}):
        return
    (image,) = ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageDigest": digest}])["images"]
    ecr.put_image(
        repositoryName=repository,
        imageManifest=image["imageManifest"],
        imageManifestMediaType=image["imageManifestMediaType"],
        imageTag=tag,
        imageDigest=digest,
    )


def build(engine: Engine, recipe: Recipe, name: str) -> None:
    """Build the image, and name it `name`. Raise ImageBuildFailed, with the end of the engine's output, if the build
    fails."""
    arguments = [f"--build-arg={key}={value}" for key, value in sorted(recipe.build_arguments.items())]
    options = ("--platform", _PLATFORMS[recipe.architecture], "-f", str(recipe.root / DOCKERFILE), "-t", name)
    try:
        engine.run("build", *options, *arguments, str(recipe.root))
    except subprocess.CalledProcessError as error:
        raise ImageBuildFailed(f"{engine.name} could not build the image:\n{error.output}") from error


def push(engine: Engine, ecr: Any, repository_uri: str, tag: str) -> None:
    """Log in to the registry, and push the image that was built as `repository_uri:tag`. Raise ImagePushRefused, with
    the end of the engine's output, if either fails."""
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
            f"{engine.name} {error.cmd} failed at {registry}; deployment/aws/github_role.yaml lists the permissions "
            f"that it needs (PushImages):\n{error.output}"
        ) from error


def registry_host(ecr: Any, account_id: str) -> str:
    """Return the host name of an account's ECR registry in the client's region. In China it ends in amazonaws.com.cn:
    docs.amazonaws.cn/en_us/general/latest/gr/endpoints-arns.html"""
    china = ".cn" if ecr.meta.partition == "aws-cn" else ""
    return f"{account_id}.dkr.ecr.{ecr.meta.region_name}.amazonaws.com{china}"


def _registry_of(ecr: Any, repository_uri: str) -> tuple[str, bool]:
    """Return the registry's host, and whether it uses plain HTTP. If the client uses an emulator, that is the
    emulator's host instead of ECR's."""
    endpoint = urlsplit(str(ecr.meta.endpoint_url))
    if (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
        return repository_uri.partition("/")[0], False
    return endpoint.netloc, endpoint.scheme == "http"
