"""The contracts in the published bucket: the live ones, and the text of every contract that a file was checked against.

    contracts/live/<dataset>.yaml               the live contract; it replaces the one that is shipped with the code
    contracts/used/<dataset>/<hash>.yaml        a contract that was used for a file; the file's receipt has the hash
    contracts/used/<dataset>/once/<hash>.yaml   the same, if a person changed the contract for one run only

S3's versions of a live contract are its history. Each version names the one that it replaced, so that repeated
rollbacks go back further each time.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from blocks.object_store import ListedObject, ObjectStore, StoredObject
from flows.pipeline.receipt import ContractUsed
from flows.refinery.contract.loading import (
    ContractInvalid,
    Contracts,
    UnusableContract,
    contracts_in,
    parse_contract,
    sources_of,
    text_of,
)
from flows.refinery.contract.model import Contract
from flows.refinery.contract.yaml_with_lines import MAX_BYTES
from flows.refinery.errors import TerminalError, TransientError

LOOK_SECONDS = 60.0
LIVE, USED = "contracts/live/", "contracts/used/"
_ENDING, _ONCE = ".yaml", "once/"
_YAML = "application/yaml"
_REPLACES = "replaces"  # metadata: the version ID of the previous live contract; empty if the code's contract applied


class ContractMoved(TransientError):
    """Another person published or rolled back the contract in the meantime. Check the difference again."""


class NothingToRollBack(TerminalError):
    """The dataset has no published contract, or the version before it is unknown or has expired."""


class ContractNotKept(TerminalError):
    """No stored contract matches the request, or several do. A contract is stored when a file is checked against it;
    older releases did not store contracts."""


def live_contract(store: ObjectStore, dataset: str) -> StoredObject | None:
    """Return the published contract of a dataset, or None if none is published."""
    # Look for it in a listing first, because S3 responds with 403, not 404, to a request for a missing object if the
    # caller has permission to list only contracts/.
    return store.get(_live_key(dataset)) if dataset in live_datasets(store) else None


def live_datasets(store: ObjectStore) -> dict[str, ListedObject]:
    """Return the stored objects of all published contracts, by dataset."""
    found = {_name(each.key): each for page in store.list_objects(LIVE) for each in page}
    return {dataset: each for dataset, each in found.items() if each.key == _live_key(dataset)}


def publish(store: ObjectStore, dataset: str, text: str, replacing: StoredObject | None) -> None:
    """Make `text` the live contract of a dataset. `replacing` is the contract that was live when the person looked at
    the difference, or None if there was none. Raise ContractMoved if another contract has become live since."""
    before = {_REPLACES: (replacing.version_id or "") if replacing else ""}
    _put(store, dataset, text, replacing, before)


def version_before(store: ObjectStore, dataset: str, live: StoredObject | None) -> StoredObject | None:
    """Return the contract that the live one replaced, or None if that was the contract in the code. Raise
    NothingToRollBack if no contract is published, or if the previous version is unknown or has expired."""
    if live is None:
        raise NothingToRollBack(f"no contract of {dataset} is published: the one that was deployed applies")
    version = live.metadata.get(_REPLACES)
    if version == "":
        return None
    found = store.get(_live_key(dataset), version) if version else None
    if found is None:
        raise NothingToRollBack(
            f"the version before the live contract of {dataset} is unknown, or S3 has removed it; publish the text"
            f" that you want: sluice contract show --hash HASH prints one that was used"
        )
    return found


def roll_back(store: ObjectStore, dataset: str, live: StoredObject, before: StoredObject | None) -> None:
    """Replace the live contract with `before`, which `version_before` returned; if that is None, delete it. Raise
    ContractMoved if `live` is no longer the live contract."""
    if before is not None:
        _put(store, dataset, before.body.decode(), live, dict(before.metadata))
    elif not store.delete_if_unchanged(_live_key(dataset), live):
        raise _moved(dataset)


def last_used(store: ObjectStore, dataset: str) -> StoredObject | None:
    """Return the newest contract of a dataset that a file was checked against, or None if there is none. Contracts that
    a person changed for one run only are skipped."""
    found = [each for each in _used(store, dataset) if f"/{_ONCE}" not in each.key]
    newest = max(found, key=lambda each: each.last_modified, default=None)
    return store.get(newest.key) if newest else None


def live_or_last_used(store: ObjectStore, dataset: str) -> str:
    """Return the text of a dataset's published contract or, if there is none, of the newest contract that a file was
    checked against. Raise ContractNotKept if there is neither."""
    stored = live_contract(store, dataset) or last_used(store, dataset)
    if stored is None:
        raise ContractNotKept(f"no contract of {dataset!r} is published, and no file was checked against one")
    return stored.body.decode("utf-8", "replace")


def used_contract(store: ObjectStore, content_hash: str, dataset: str = "") -> str:
    """Return the text of a contract that a file was checked against.

    Args:
        content_hash: the hash of the contract, or the beginning of the hash.
        dataset: the dataset of the contract; "" to search all datasets.

    Raises:
        ContractNotKept: no contract has a hash that begins with `content_hash`, or several do.
    """
    found = [each.key for each in _used(store, dataset) if _name(each.key).startswith(content_hash)]
    if len(found) == 1 and (stored := store.get(found[0])):
        return stored.body.decode()
    several = f": {', '.join(map(_name, found[:5]))}" if found else ""
    raise ContractNotKept(
        f"{len(found)} contracts that files were checked against have a hash that begins with {content_hash}{several}"
    )


def is_replaced(store: ObjectStore, used: ContractUsed) -> bool:
    """Return whether the contract that a file was checked against differs from the contract that is live now. Return
    False if either of them is not stored."""
    live, kept = live_contract(store, used.dataset), store.get(_used_key(used.dataset, used.content_hash))
    if live is None or kept is None:
        return False
    # The hash in the receipt cannot be compared, because it also covers the steps.py in the image.
    now, then = (parse_contract(each.body, "contract.yaml", None).content_hash for each in (live, kept))
    return now != then


class _Published(NamedTuple):
    etag: str
    contract: Contract | UnusableContract


class LiveContracts:
    """The contracts that currently apply: the published ones and, for other datasets, those in a folder.

    The folder is read once. The bucket is checked at most once every LOOK_SECONDS, no matter how many files arrive.
    """

    def __init__(self, folder: Path, store: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._store, self._clock = folder, store, clock
        self._shipped: dict[str, Contract | UnusableContract] = {}
        self._published: dict[str, _Published] = {}
        self._contracts: Contracts | None = None
        self._look_at = 0.0
        self._kept: set[str] = set()
        self._lock = threading.Lock()

    def read(self) -> Contracts:
        """Return the contracts that currently apply. An invalid contract usually affects only its own dataset.

        Raises:
            ContractInvalid: an invalid contract may apply to any key.
            AwsUnavailable, AwsRefused, AwsCallInvalid: the published contracts cannot be read.
        """
        with self._lock:
            if self._contracts is None or self._clock() >= self._look_at:
                self._contracts = self._looked(self._contracts)
                self._look_at = self._clock() + LOOK_SECONDS
            return self._contracts

    def keep(self, contract: Contract) -> None:
        """Store the text of a contract that a file was checked against, so that it can be found by the hash in the
        receipt."""
        if contract.content_hash in self._kept:
            return
        key = _used_key(contract.dataset, contract.content_hash, "" if contract.document else _ONCE)
        self._store.put_if_unchanged(key, text_of(contract), None, content_type=_YAML)
        self._kept.add(contract.content_hash)

    def _looked(self, before: Contracts | None) -> Contracts:
        self._shipped = self._shipped or {each.dataset: each for each in contracts_in(self._folder)}
        known, listed = self._published, live_datasets(self._store)
        if before and {name: each.etag for name, each in known.items()} == {
            name: each.etag for name, each in listed.items()
        }:
            return before
        self._published = {
            name: found
            for name, each in listed.items()
            if (found := known[name] if name in known and known[name].etag == each.etag else self._read(name, each))
        }
        return Contracts({**self._shipped, **{name: each.contract for name, each in self._published.items()}}.values())

    def _read(self, dataset: str, listed: ListedObject) -> _Published | None:
        """Read a published contract. Return None if it has been deleted in the meantime."""
        if listed.size_bytes > MAX_BYTES:
            return self._unusable(dataset, listed, b"", f"{listed.key}: larger than {MAX_BYTES} bytes")
        stored = self._store.get(listed.key)
        if stored is None:
            return None
        try:
            return _Published(stored.etag, parse_contract(stored.body, listed.key, self._folder / dataset))
        except ContractInvalid as error:
            return self._unusable(dataset, listed, stored.body, str(error))

    def _unusable(self, dataset: str, listed: ListedObject, content: bytes, fault: str) -> _Published:
        shipped = self._shipped.get(dataset)
        sources = (*sources_of(content), *(shipped.sources if shipped else (f"incoming/{dataset}/**",)))
        return _Published(listed.etag, UnusableContract(dataset, sources, fault))


def _live_key(dataset: str) -> str:
    return f"{LIVE}{dataset}{_ENDING}"


def _used_key(dataset: str, content_hash: str, once: str = "") -> str:
    return f"{USED}{dataset}/{once}{content_hash}{_ENDING}"


def _name(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(_ENDING)


def _used(store: ObjectStore, dataset: str) -> Iterator[ListedObject]:
    prefix = f"{USED}{dataset}/" if dataset else USED
    return (each for page in store.list_objects(prefix) for each in page)


def _put(store: ObjectStore, dataset: str, text: str, seen: StoredObject | None, metadata: dict[str, str]) -> None:
    if not store.put_if_unchanged(_live_key(dataset), text, seen, metadata=metadata, content_type=_YAML):
        raise _moved(dataset)


def _moved(dataset: str) -> ContractMoved:
    return ContractMoved(f"another person published or rolled back {dataset} in the meantime; run the command again")
