"""The container engine that builds and runs the image: Docker if it responds, otherwise podman as root.

Podman uses separate storage in the user's cache folder. The user's normal podman storage is not touched, and later runs
reuse the layers, even from another clone of the repository.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "container" / "Dockerfile"
_OFFICIAL_BASE = "docker.io/library/python:3.11-slim-bookworm"
_BUILD_SECONDS = 1_500
_MOST_IMAGES = 400  # each step of a build leaves one; the cache is emptied when there are more
_PODMAN_NEEDS = ("podman", "runc", "conmon", "catatonit")

# Like Debian's slim images and Docker's Python images, this base has no documentation, no translations, and a standard
# library without bytecode.
_BASE_RECIPE = (
    *("mmdebstrap", "--quiet", "--variant=apt", "--include=python3,python3-venv,ca-certificates"),
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")),
    *("--customize-hook=find \"$1/usr/lib/python3.11\" -name '*.pyc' -delete", "bookworm"),
)


class NoEngine(Exception):
    """The image cannot be built on this machine; the message names what is missing."""


@dataclass(frozen=True)
class Engine:
    """A command-line client compatible with Docker.

    Attributes:
        command: "docker" or "podman".
        build_options: additional options that a build needs on this machine.
        environment: environment variables that the command gets in addition to those of this process.
        docker_host: the URL of Docker's API, as in DOCKER_HOST, or "" for the default.
        base_image: the image that the built image is based on.
        cache: the folder for everything that is kept between test runs.
    """

    command: str
    base_image: str
    cache: Path
    docker_host: str = ""
    build_options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, seconds: float = 300, stdin: str | None = None) -> str:
        """Run a command of the engine, such as `ps`, and return its output.

        Raises:
            AssertionError: the command failed; the message contains its output.
        """
        ran = self.attempt(*arguments, seconds=seconds, stdin=stdin)
        said = f"{self.command} {arguments[0]} ended with {ran.returncode}:\n{ran.stdout[-1000:]}\n{ran.stderr[-3000:]}"
        assert ran.returncode == 0, said
        return ran.stdout

    def attempt(
        self, *arguments: str, seconds: float = 300, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine that may fail, and return the completed process."""
        return _run(self.command, *arguments, environment=self.environment, seconds=seconds, stdin=stdin or "")

    def build(self, tag: str, context: Path = ROOT, dockerfile: Path = DOCKERFILE, target: str = "") -> str:
        """Build an image and return its tag."""
        self(*self.build_command(tag, context, dockerfile, target), seconds=_BUILD_SECONDS)
        return tag

    def build_command(self, tag: str, context: Path, dockerfile: Path, target: str = "") -> tuple[str, ...]:
        """Return the engine's arguments for building an image."""
        wanted = ("--target", target) if target else ()
        base = ("--build-arg", f"BASE_IMAGE={self.base_image}")
        return ("build", *self.build_options, *base, *wanted, "-f", str(dockerfile), "-t", tag, str(context))


def _run(
    *words: str, environment: dict[str, str] | None = None, seconds: float = 300, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    everything = os.environ | (environment or {})
    return subprocess.run(words, env=everything, input=stdin, capture_output=True, text=True, timeout=seconds)


@contextlib.contextmanager
def container_engine() -> Iterator[Engine]:
    """Provide an engine that serves Docker's API for the duration of the context.

    Raises:
        NoEngine: this machine has no usable engine.
    """
    if sys.platform != "linux":
        raise NoEngine("tasks share the machine's network here, which only Linux offers to containers")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice" / "image"
    cache.mkdir(parents=True, exist_ok=True)
    if _docker_answers():
        yield Engine("docker", _pulled_base("docker", {}), cache, docker_host=os.environ.get("DOCKER_HOST", ""))
        return
    missing = [program for program in _PODMAN_NEEDS if not _has(program)]
    if missing or os.geteuid() != 0:
        raise NoEngine(f"no Docker engine answers, and podman cannot be used: {', '.join(missing) or 'not root'}")
    with _podman(cache) as engine:
        yield engine


def _docker_answers() -> bool:
    return shutil.which("docker") is not None and _run("docker", "info", seconds=60).returncode == 0


def _has(program: str) -> bool:
    places = (os.environ.get("PATH", ""), "/usr/sbin", "/usr/libexec/podman", "/usr/lib/podman")
    return shutil.which(program, path=os.pathsep.join(places)) is not None


# --- podman ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _podman(cache: Path) -> Iterator[Engine]:
    environment = _podman_settings(cache)
    with _alone(cache):
        base = _podman_base(cache, environment)
    with tempfile.TemporaryDirectory(prefix="sluice-podman-") as folder:
        socket = Path(folder) / "podman.sock"
        serve = ("podman", "system", "service", "--time", "0", f"unix://{socket}")
        # When a container runs out of memory, podman's monitor leaves a file in its working directory.
        service = subprocess.Popen(serve, env=os.environ | environment, cwd=folder)
        try:
            deadline = time.monotonic() + 60
            while not socket.exists():
                if service.poll() is not None or time.monotonic() > deadline:
                    raise NoEngine(f"podman's service does not answer (exit code {service.poll()})")
                time.sleep(0.05)
            yield Engine("podman", base, cache, f"unix://{socket}", _podman_build_options(), environment)
        finally:
            service.terminate()
            service.wait(30)
            _make_room(environment)


def _make_room(environment: dict[str, str]) -> None:
    kept = _run("podman", "images", "--all", "--quiet", environment=environment).stdout.splitlines()
    if len(kept) > _MOST_IMAGES:
        _run("podman", "image", "prune", "--force", environment=environment)


def _podman_settings(cache: Path) -> dict[str, str]:
    """Write a podman configuration that replaces the user's, and return the environment variables that select it."""
    running = Path("/run/sluice-image")
    containers, storage = cache / "containers.conf", cache / "storage.conf"
    containers.write_text(
        '[containers]\nnetns = "host"\ndefault_ulimits = []\nlog_driver = "k8s-file"\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nlock_type = "file"\n'
        f'tmp_dir = "{running}/libpod"\n'
    )
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{cache / "storage"}"\nrunroot = "{running}/containers"\n'
    )
    return {"CONTAINERS_CONF": str(containers), "CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_FORMAT": "docker"}


def _podman_build_options() -> tuple[str, ...]:
    """Return build options that also work inside a container. If PIP_CERT is set, pip trusts its certificates."""
    bundle = os.environ.get("PIP_CERT", "")
    trust = ("--volume", f"{bundle}:{bundle}:ro", "--build-arg", f"PIP_CERT={bundle}") if bundle else ()
    return ("--layers", "--isolation", "chroot", "--network", "host", *trust)


def _podman_base(cache: Path, environment: dict[str, str]) -> str:
    """Return Docker's Python image or, if no registry can be reached, one that is built once from Debian packages."""
    with contextlib.suppress(NoEngine):
        return _pulled_base("podman", environment)
    name = f"localhost/sluice-base:{hashlib.sha256(repr(_BASE_RECIPE).encode()).hexdigest()[:12]}"
    if _run("podman", "image", "exists", name, environment=environment).returncode == 0:
        return name
    if not shutil.which("mmdebstrap"):
        raise NoEngine("the base image can be neither pulled (no registry answers) nor made (mmdebstrap is missing)")
    archive = cache / "base.tar"
    made = _run(*_BASE_RECIPE, str(archive), seconds=900)
    if made.returncode != 0:
        raise NoEngine(f"mmdebstrap could not make a base image: {made.stderr[-1000:]}")
    _run("podman", "import", "-q", str(archive), name, environment=environment).check_returncode()
    archive.unlink()
    return name


def _pulled_base(command: str, environment: dict[str, str]) -> str:
    try:
        pulled = _run(command, "pull", "-q", _OFFICIAL_BASE, environment=environment)
    except subprocess.TimeoutExpired as error:
        raise NoEngine(f"{_OFFICIAL_BASE} was not pulled in {error.timeout:.0f} s") from error
    if pulled.returncode != 0:
        raise NoEngine(f"{_OFFICIAL_BASE} cannot be pulled: {pulled.stderr.strip()[-300:]}")
    return _OFFICIAL_BASE


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Hold a lock, so that two test runs on one machine do not build the base image at the same time."""
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
