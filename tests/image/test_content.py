"""Tests that the image contains what docs/image.md promises."""

from __future__ import annotations

import json
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import IO

import pytest

from container.lock import packages
from container.trim import AWS_SERVICES
from tests.image.engine import DOCKERFILE, ROOT, Engine
from tests.image.survey import Survey

pytestmark = [pytest.mark.image, pytest.mark.timeout(1_800)]  # the first test waits for the image to be built

_MOST_BYTES = 250_000_000
_FAST, _AS_PUSHED = 4, 6  # levels of compression


def test_the_image_runs_as_a_user_without_privileges(engine: Engine, image: str, surveyed: Survey) -> None:
    assert surveyed.config["User"] == "10001:10001"
    status = engine("run", "--rm", image, "cat", "/proc/self/status")
    capabilities = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    assert int(capabilities, 16) == 0
    found = engine("run", "--rm", "--user", "0", image, "find", "/", "-xdev", "-type", "f", "-perm", "/6000")
    assert found.strip() == ""  # no setuid or setgid files


def test_only_temporary_folders_are_writable(engine: Engine, image: str) -> None:
    """Even if the root file system is not read-only, a process cannot change the code and packages that it runs."""
    look = (
        "import os, pathlib; "
        "print(*(str(p) for top in ('/app', '/opt', '/usr', '/etc', '/var', '/home', '/root', '/srv') "
        "for p in (pathlib.Path(top), *pathlib.Path(top).rglob('*')) if not p.is_symlink() and os.access(p, os.W_OK)))"
    )
    writable = engine("run", "--rm", image, "python", "-c", look).split()
    assert [path for path in writable if path not in {"/var/tmp", "/var/lock"}] == []  # noqa: S108


def test_the_home_folders_are_in_the_declared_volume(surveyed: Survey) -> None:
    environment = dict(entry.split("=", 1) for entry in surveyed.config["Env"])
    assert list(surveyed.config["Volumes"]) == ["/tmp"]  # noqa: S108
    assert environment["HOME"] == "/tmp"  # noqa: S108
    assert environment["PREFECT_HOME"].startswith("/tmp/")  # noqa: S108


def test_the_memory_allocators_are_set_to_return_freed_memory(surveyed: Survey) -> None:
    environment = dict(entry.split("=", 1) for entry in surveyed.config["Env"])
    assert environment["ARROW_DEFAULT_MEMORY_POOL"] == "mimalloc"
    assert environment["MIMALLOC_ALLOW_THP"] == "0"
    assert int(environment["MALLOC_ARENA_MAX"]) <= 2
    assert int(environment["MALLOC_MMAP_THRESHOLD_"]) <= 2**20
    assert int(environment["MALLOC_TRIM_THRESHOLD_"]) <= 2**23


def test_all_python_code_has_bytecode_including_the_standard_library(surveyed: Survey) -> None:
    """The bytecode is never compared with its source, so it contains no modification time and builds are
    reproducible."""
    assert surveyed.found["without_bytecode"] == []


def test_the_packages_are_those_of_the_lock(surveyed: Survey) -> None:
    wanted = packages(surveyed.found["python"])
    assert len(wanted) > 80
    assert surveyed.found["packages"] == {name: version for name, (version, _) in wanted.items()}
    assert packages() == wanted  # the packages in the bill of materials and the scan


def test_a_package_with_another_hash_is_rejected(engine: Engine, tmp_path: Path) -> None:
    context = tmp_path / "container"
    context.mkdir()
    shutil.copy(ROOT / "container" / "trim.py", context)
    (context / "requirements.lock").write_text(f"six==1.17.0 --hash=sha256:{'0' * 64}\n")
    shutil.copytree(ROOT / "flows", tmp_path / "flows")
    build = engine.build_command("localhost/sluice-test:refused", tmp_path, DOCKERFILE, target="build")
    refused = engine.attempt(*build, seconds=300)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stdout + refused.stderr


def test_an_image_whose_steps_cannot_be_imported_is_not_built(engine: Engine, image: str, tmp_path: Path) -> None:
    for name in ("container", "lambda_trigger", "flows", "blocks", "prefect.yaml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "flows" / "contracts" / "orders" / "steps.py").write_text("import no_such_module\n")
    build = engine.build_command("localhost/sluice-test:refused", tmp_path, DOCKERFILE, target="build")
    refused = engine.attempt(*build, seconds=300)
    assert refused.returncode != 0
    assert "needs the module 'no_such_module'" in refused.stdout + refused.stderr


@pytest.mark.parametrize("what", ["installers", "programs", "histories", "caches", "tests", "test_modules"])
def test_the_image_contains_no(what: str, surveyed: Survey) -> None:
    """The image contains no installers, build tools, shell histories, temporary files, pip or apt caches, or tests."""
    assert surveyed.found[what] == []


def test_modules_that_other_tests_do_not_use_can_be_imported(engine: Engine, image: str) -> None:
    """The removal of unneeded files has not removed anything that these modules import."""
    modules = [
        *("flows.drain_queue", "flows.process_upload", "flows.repair", "blocks.settings_block"),
        *("great_expectations", "scipy.stats", "scipy.optimize", "scipy.sparse.linalg", "altair"),
        *(f"pyarrow.{name}" for name in ("parquet", "dataset", "csv", "json", "compute", "fs", "acero", "orc")),
        *("python_calamine", "numpy.testing", "numpy.f2py", "pandas.testing"),
        *("prefect.engine", "prefect.events", "prefect_aws", "prefect_aws.workers"),
        *("great_expectations.render.view", "jinja2", "prefect_aws.observers.diagnostics", "xlsxwriter"),
    ]
    script = f"import importlib; [importlib.import_module(name) for name in {modules}]"
    engine("run", "--rm", "--read-only", image, "python", "-c", script)


def test_every_module_can_be_imported_and_every_client_of_aws_created(engine: Engine, image: str) -> None:
    """The tasks of the local cloud run from the sources, so other tests do not notice what the image lacks."""
    script = (
        "import boto3, importlib, pkgutil; "
        "packages = [importlib.import_module(name) for name in ('blocks', 'flows', 'lambda_trigger')]; "
        "found = [m.name for p in packages for m in pkgutil.walk_packages(p.__path__, f'{p.__name__}.')]; "
        "[importlib.import_module(name) for name in found]; "
        f"[boto3.client(name, region_name='eu-central-1') for name in {sorted(AWS_SERVICES)}]; "
        "print(len(found))"
    )
    assert int(engine("run", "--rm", "--read-only", image, "python", "-c", script)) > 100


def test_the_command_of_prefects_worker_for_ecs_can_be_run(engine: Engine, image: str) -> None:
    assert "flow-run execute" in engine("run", "--rm", "--read-only", image, "prefect", "flow-run", "execute", "--help")


def test_the_compressed_size_is_within_the_limit(engine: Engine, image: str, tmp_path: Path) -> None:
    """The size is that in a registry, where each layer is compressed with gzip, as `docker push` sends it.

    A lower level of compression takes half the CPU time, and its size is an upper bound.
    """
    archive = tmp_path / "image.tar"
    engine("save", "-o", str(archive), image, seconds=600)
    for level in (_FAST, _AS_PUSHED):
        sizes = compressed_layers(archive, engine.cache / "compressed", level)
        total = sum(sizes.values())
        print(f"compressed with level {level}: {total / 1e6:.0f} MB in {len(sizes)} layers")
        if total <= _MOST_BYTES:
            return
    raise AssertionError(json.dumps(sizes))


def compressed_layers(archive: Path, notes: Path, level: int) -> dict[str, int]:
    """Return digest → gzip-compressed size in bytes for each layer of a saved image.

    Compressing all layers takes long, so the sizes are cached in the folder `notes`.
    """
    notes.mkdir(exist_ok=True)
    sizes = {}
    with tarfile.open(archive) as image:
        (manifest,) = json.load(_member(image, "manifest.json"))
        digests = json.load(_member(image, manifest["Config"]))["rootfs"]["diff_ids"]
        for digest, member in zip(digests, manifest["Layers"], strict=True):
            note = notes / f"{digest.replace(':', '-')}-{level}"
            if not note.exists():
                note.write_text(str(_compressed_bytes(_member(image, member), level)))
            sizes[digest] = int(note.read_text())
    return sizes


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)  # follows links, because podman stores a layer that occurs twice only once
    assert file is not None
    return file


def _compressed_bytes(content: IO[bytes], level: int) -> int:
    compressor = zlib.compressobj(level)
    pieces = iter(lambda: content.read(2**20), b"")
    return sum(len(compressor.compress(piece)) for piece in pieces) + len(compressor.flush())
