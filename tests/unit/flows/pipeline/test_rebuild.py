"""The index can be rebuilt from the receipts, no matter which of its entries were lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline.protocol import IndexEntry
from flows.pipeline.rebuild import Rebuilt, rebuild
from flows.pipeline.receipt import Receipt, receipt_key
from flows.refinery.contract.loading import Contracts
from tests.unit.flows.conftest import Account

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
GOOD, OTHER, EMPTY = b"a,b\n1,2\n", b"a,b\n3,4\n", b""
NO_ROWS = {"expectations": [{"expect_table_row_count_to_equal": {"value": 0, "severity": "critical"}}]}


@pytest.fixture
def stocked(account: Account, tmp_path: Path) -> Account:
    """Return an account with two datasets, one of which appends. Their index entries cover every type of history."""
    root = tmp_path / "contracts"
    for dataset, more in (("default", ""), ("stock", ""), ("log", "on_reupload: append\n")):
        (root / dataset).mkdir(parents=True)
        (root / dataset / "contract.yaml").write_text(f"dataset: {dataset}\n{more}")
    account.parts = replace(account.parts, read_contracts=lambda: Contracts.load(root))
    for dataset in ("stock", "log"):
        versions(account, f"incoming/{dataset}/once.csv", GOOD)
        versions(account, f"incoming/{dataset}/replaced.csv", GOOD, OTHER)
        versions(account, f"incoming/{dataset}/rejected again.csv", GOOD, EMPTY)
        versions(account, f"incoming/{dataset}/never published.csv", EMPTY)
    withdrawn = versions(account, "incoming/stock/withdrawn.csv", GOOD, OTHER)[-1]
    rerun(account, withdrawn, contract="bad")
    rerun(account, versions(account, "incoming/stock/again.csv", GOOD)[-1])
    return account


def versions(account: Account, key: str, *bodies: bytes) -> list[Receipt]:
    return [account.process(account.upload(key, body, f"{place:04}")) for place, body in enumerate(bodies, 1)]


def rerun(account: Account, receipt: Receipt, contract: str = "") -> Receipt:
    from flows.refinery.contract.loading import overridden
    from lambda_trigger.message import UploadMessage

    own = account.parts.contracts.named("stock")
    upload = UploadMessage(**receipt.source.model_dump(exclude={"last_modified"}), attempt=1)
    return account.process(upload, contract=overridden(own, NO_ROWS) if contract else own)


def index_of(account: Account) -> dict[str, tuple[Any, ...]]:
    """Return object key → the fields that readers and later uploads use, for every index entry."""
    store = account.parts.store
    found = {}
    for key in account.keys("index/"):
        stored = store.get(key)
        assert stored is not None
        entry = IndexEntry.from_json(stored.body)
        found[key] = (entry.key, entry.current, entry.latest, entry.appended)
    return found


def rebuilt(account: Account, *, dry_run: bool = False) -> Rebuilt:
    return rebuild(account.parts, LONG_AGO, lambda receipts: frozenset(one.run_id for one in receipts), dry_run=dry_run)


def test_a_lost_index_is_rebuilt_as_it_was(stocked: Account) -> None:
    before = index_of(stocked)
    assert len(before) == 10
    for key in before:
        stocked.parts.store.delete(key)
    assert rebuilt(stocked, dry_run=True).entries == 10
    assert index_of(stocked) == {}
    done = rebuilt(stocked)
    assert (done.entries, done.receipts, done.recorded) == (10, 15, 15)
    assert index_of(stocked) == before
    assert rebuilt(stocked).entries == 0, "doing it again changes nothing"


def test_only_stale_and_unreadable_entries_are_written_again(stocked: Account) -> None:
    before = index_of(stocked)
    assert rebuilt(stocked).entries == 0
    store = stocked.parts.store
    stale = next(key for key, entry in before.items() if entry[0] == "incoming/stock/replaced.csv")
    broken = next(key for key, entry in before.items() if entry[0] == "incoming/log/replaced.csv")
    old = versions(stocked, "incoming/default/other.csv", GOOD)[0]
    assert old.contract.dataset == "default"
    stored = store.get(stale)
    assert stored is not None
    first = IndexEntry.from_json(stored.body).model_copy(update={"latest": before[stale][1], "current": None})
    store.put(stale, first.model_dump_json(by_alias=True))
    store.put(broken, "{")
    assert rebuilt(stocked).entries == 2
    assert {key: entry for key, entry in index_of(stocked).items() if key in before} == before


def test_receipts_that_are_unreadable_or_of_unknown_datasets_are_named_and_skipped(stocked: Account) -> None:
    store = stocked.parts.store
    store.put(receipt_key("0" * 32), "{}")
    (default,) = (contract for contract in stocked.parts.contracts if contract.dataset == "default")
    stocked.parts = replace(stocked.parts, read_contracts=lambda: Contracts([default]))
    for key in stocked.keys("index/"):
        store.delete(key)
    done = rebuilt(stocked)
    assert (done.entries, done.unknown, done.unreadable) == (0, {"stock", "log"}, [receipt_key("0" * 32)])
    assert stocked.keys("index/") == []


def test_only_receipts_written_since_the_time_are_recorded(stocked: Account) -> None:
    recorded: list[Receipt] = []

    def record(receipts: Any) -> frozenset[str]:
        recorded.extend(receipts)
        return frozenset(one.run_id for one in receipts)

    rebuild(stocked.parts, datetime(2999, 1, 1, tzinfo=UTC), record, dry_run=False)
    assert recorded == []
