"""Applies concurrency.yaml to the Prefect server: how many uploads may be worked on at the same time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.observability.upload_slot import ALL_UPLOADS, limit_of
from flows.refinery.errors import TerminalError

FILE = Path(__file__).with_suffix(".yaml")
_PAGE = 200

AtOnce = Annotated[int, Field(ge=1)]


class ConcurrencyInvalid(TerminalError):
    """The file with the concurrency limits is not as it should be; the message names the place."""


class Concurrency(BaseModel):
    """How many may be worked on at the same time."""

    model_config = ConfigDict(extra="forbid")

    uploads: AtOnce = Field(description="Uploads of all datasets together.")
    each_dataset: AtOnce = Field(description="Uploads of each dataset.")
    datasets: dict[str, AtOnce] = Field(default={}, description="Uploads of datasets that have another limit.")
    work_pools: dict[str, AtOnce] = Field(default={}, description="Runs that a person started, by work pool.")

    def limits(self, datasets: Collection[str]) -> dict[str, int]:
        """Return every limit by its name in Prefect, for the datasets that there are."""
        of_datasets = dict.fromkeys(datasets, self.each_dataset) | self.datasets
        return {ALL_UPLOADS: self.uploads} | {limit_of(dataset): limit for dataset, limit in of_datasets.items()}


def declared(path: Path = FILE) -> Concurrency:
    """Read the limits as they are written.

    Raises:
        ConcurrencyInvalid: they are not as they should be.
    """
    try:
        return Concurrency.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise ConcurrencyInvalid(f"{path}: {where}: {fault['msg']}") from None


def apply(concurrency: Concurrency, datasets: Collection[str]) -> list[str]:
    """Make the server's limits those of the file; return what was done, a line for each.

    Slots that are taken stay taken. A work pool that is not there is left out.

    Args:
        datasets: the names of the datasets that have a contract.
    """
    with get_client(sync_client=True) as client:
        return [
            *_apply_limits(client, concurrency.limits(datasets)),
            *(_apply_to_pool(client, pool, limit) for pool, limit in concurrency.work_pools.items()),
        ]


def _apply_limits(client: SyncPrefectClient, limits: dict[str, int]) -> Iterator[str]:
    for name in _present(client) - limits.keys():
        client.delete_global_concurrency_limit_by_name(name)
        yield f"deleted: limit {name}"
    for name, limit in limits.items():
        client.upsert_global_concurrency_limit_by_name(name, limit)
        yield f"limit {name}: {limit}"


def _present(client: SyncPrefectClient) -> set[str]:
    """The server's limits that are ours, by name."""
    found: list[str] = []
    while True:
        page = [limit.name for limit in client.read_global_concurrency_limits(limit=_PAGE, offset=len(found))]
        found += page
        if len(page) < _PAGE:
            return {name for name in found if name == ALL_UPLOADS or name.startswith(limit_of(""))}


def _apply_to_pool(client: SyncPrefectClient, pool: str, limit: int) -> str:
    try:
        client.update_work_pool(pool, WorkPoolUpdate(concurrency_limit=limit))
    except ObjectNotFound:
        return f"left out: work pool {pool} (there is none)"
    return f"work pool {pool}: {limit}"
