"""Fixtures that the image tests share: the image, built once, and a pipeline whose tasks run as containers of it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chain.chain import Chain, running_chain
from tests.image.engine import Engine, NoEngine, container_engine
from tests.image.survey import Survey, survey

_CONTRACTS = Path(__file__).parent / "contracts"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Return the container engine, or skip the tests with the reason if none can be used."""
    try:
        with container_engine() as found:
            yield found
    except NoEngine as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def image(engine: Engine) -> Iterator[str]:
    """Build the image from container/Dockerfile, return its tag, and remove it after the tests."""
    tag = engine.build(f"localhost/sluice-test:{uuid.uuid4().hex[:12]}")
    yield tag
    engine.attempt("rmi", "--no-prune", tag)


@pytest.fixture(scope="session")
def surveyed(engine: Engine, image: str) -> Survey:
    """Return what an inspection of the image found."""
    return survey(engine, image)


@pytest.fixture(scope="session")
def chain(engine: Engine, image: str) -> Iterator[Chain]:
    """Start a pipeline with IAM enforced. Its ECS tasks are containers of the image with two additional contracts."""
    tag = f"{image}-contracts"
    engine("build", "--build-arg", f"BASE_IMAGE={image}", *engine.build_options, "-t", tag, str(_CONTRACTS))
    with pytest.MonkeyPatch.context() as patch:
        if engine.docker_host:
            patch.setitem(os.environ, "DOCKER_HOST", engine.docker_host)
        with running_chain(docker=True, worker=False, ImageUri=tag) as started:
            yield started
    engine.attempt("rmi", "--no-prune", tag)
