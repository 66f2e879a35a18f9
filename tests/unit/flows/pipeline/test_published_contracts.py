"""Published contracts replace those in the image and are reloaded every minute. Invalid ones never reject a file."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest

from blocks.object_store import ListedObject, ObjectStore, StoredObject
from flows.pipeline import published_contracts as published
from flows.pipeline.errors import ContractUnusable
from flows.pipeline.published_contracts import (
    LOOK_SECONDS,
    ContractMoved,
    ContractNotKept,
    LiveContracts,
    NothingToRollBack,
)
from flows.pipeline.receipt import Status
from flows.refinery.contract.loading import ContractInvalid, overridden, parse_contract
from flows.refinery.contract.yaml_with_lines import MAX_BYTES
from tests.chain.files import good_orders
from tests.unit.flows.conftest import PUBLISHED, Account
from tests.unit.flows.world import World, drain

KEY = "incoming/orders/monday.csv"
STRICT = "dataset: orders\nexpectations:\n  - expect_table_row_count_to_equal: {value: 3, severity: critical}\n"
OPEN = "dataset: orders\n"


class Clock:
    """A clock whose time a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class CountingStore(ObjectStore):
    """Object store that counts its list, get and conditional put requests."""

    def __init__(self) -> None:
        super().__init__("landing", PUBLISHED)
        self.lists = self.gets = self.puts = 0

    def list_objects(self, prefix: str, *, page_size: int = 1000) -> Iterator[list[ListedObject]]:
        self.lists += 1
        return super().list_objects(prefix, page_size=page_size)

    def get(self, key: str, version_id: str | None = None) -> StoredObject | None:
        self.gets += 1
        return super().get(key, version_id)

    def put_if_unchanged(self, *place: Any, **more: Any) -> bool:
        self.puts += 1
        return super().put_if_unchanged(*place, **more)


@pytest.fixture
def store(account: Account) -> ObjectStore:
    """Enable versioning for the published bucket, as the template does, and return the store of the account."""
    boto3.client("s3").put_bucket_versioning(Bucket=PUBLISHED, VersioningConfiguration={"Status": "Enabled"})
    return account.parts.store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(account: Account, store: ObjectStore, clock: Clock) -> Account:
    """Return the account with a pipeline that reloads contracts by the test's clock."""
    live = LiveContracts(account.parts.settings.contracts_root, store, clock)
    return Account(replace(account.parts, read_contracts=live.read, keep_contract=live.keep))


def publish(store: ObjectStore, text: str, dataset: str = "orders") -> None:
    published.publish(store, dataset, text, published.live_contract(store, dataset))


# --- which contract applies -------------------------------------------------------------------------------------------


def test_a_published_contract_applies_instead_of_the_shipped_one_and_others_stay(
    account: Account, store: ObjectStore
) -> None:
    publish(store, STRICT)
    contracts = account.parts.contracts
    assert [each.name for each in contracts.for_key(KEY).expectations] == ["expect_table_row_count_to_equal"]
    assert contracts.for_key("incoming/penguins/a.csv").columns


def test_a_new_dataset_needs_only_a_published_contract(account: Account, store: ObjectStore) -> None:
    publish(store, "dataset: parcels\nsource: incoming/parcels/*\n", "parcels")
    receipt = account.process(account.upload("incoming/parcels/a.csv", b"a\n1\n"))
    assert (receipt.contract.dataset, receipt.contract.is_default) == ("parcels", False)


def test_the_custom_steps_of_a_published_contract_come_from_the_image(account: Account, store: ObjectStore) -> None:
    types = "columns: {quantity: integer, unit_price: number, discount: number}"
    publish(store, f"dataset: orders\n{types}\npreprocess: [steps.add_revenue]\n")
    receipt = account.process(account.upload(KEY, good_orders(2)))
    (data,) = [each.key for each in receipt.outputs if each.kind == "data"]
    body = boto3.client("s3").get_object(Bucket=PUBLISHED, Key=data)["Body"].read()
    assert "revenue" in pd.read_parquet(io.BytesIO(body)).columns


def test_a_running_task_uses_a_change_within_a_minute_and_asks_once_a_minute(
    account: Account, store: ObjectStore, clock: Clock
) -> None:
    counted = CountingStore()
    live = LiveContracts(account.parts.settings.contracts_root, counted, clock)
    publish(store, OPEN)
    for clock.now in (0.0, 1.0, LOOK_SECONDS - 0.1):
        assert not live.read().for_key(KEY).expectations
    assert (counted.lists, counted.gets) == (1, 1)
    publish(store, STRICT)
    assert not live.read().for_key(KEY).expectations
    for clock.now in (LOOK_SECONDS, LOOK_SECONDS + 1):
        assert live.read().for_key(KEY).expectations
    assert (counted.lists, counted.gets) == (2, 2)
    clock.now = 2 * LOOK_SECONDS
    same = live.read()
    clock.now = 3 * LOOK_SECONDS
    assert live.read() is same
    assert (counted.lists, counted.gets) == (4, 2), "what did not change is not read again"


def test_a_contract_that_is_used_for_several_files_is_stored_once(account: Account) -> None:
    counted = CountingStore()
    live = LiveContracts(account.parts.settings.contracts_root, counted)
    contracts = live.read()
    for key in (KEY, KEY, "incoming/penguins/a.csv"):
        live.keep(contracts.for_key(key))
    assert counted.puts == 2


# --- a published contract that cannot be used -------------------------------------------------------------------------

BAD = {
    "unknown field": b"dataset: orders\nexpectation: []\n",
    "another dataset's": b"dataset: others\n",
    "not YAML": b"dataset: [orders\n",
    "not UTF-8": b"dataset: orders\ndescription: \xff\n",
    "a list": b"- dataset\n",
    "empty": b"",
    "too large": b"dataset: orders\n#" + b"x" * MAX_BYTES,
    "a suite, which is a file": b"dataset: orders\nsuite: suite.json\n",
    "a step that the image lacks": b"dataset: orders\npreprocess: [steps.later]\n",
    "an expectation that the release lacks": b"dataset: orders\nexpectations: [expect_column_to_shine]\n",
}


@pytest.mark.parametrize("fault", BAD)
def test_an_unusable_contract_rejects_no_file_stops_its_dataset_only_and_can_be_replaced(
    timed: Account, store: ObjectStore, clock: Clock, fault: str
) -> None:
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key=f"{published.LIVE}orders.yaml", Body=BAD[fault])
    upload = timed.upload(KEY, good_orders(2))
    with pytest.raises(ContractUnusable):
        timed.process(upload)
    assert timed.receipt(upload) is None
    assert timed.process(timed.upload("incoming/other/a.csv", b"a\n1\n")).status is Status.PUBLISHED
    publish(store, OPEN)
    clock.now += LOOK_SECONDS
    assert timed.process(upload).status is Status.PUBLISHED


def test_the_message_of_an_upload_without_a_usable_contract_stays_in_the_queue(
    account: Account, store: ObjectStore
) -> None:
    publish(store, "dataset: orders\nsource: incoming/everything/**\nfaulty: yes\n")
    for key in (KEY, "incoming/everything/a.csv"):  # the second is covered only by the invalid contract
        account.send(account.upload(key, good_orders(2)).to_json())
    world = World(account)
    assert not drain(world)
    assert account.keys("receipts/") == []
    assert len(account.keys("attempts/")) == 2
    assert account.messages() == 2


def test_an_upload_stays_in_the_queue_if_contracts_cannot_be_read(account: Account, store: ObjectStore) -> None:
    account.send(account.upload(KEY, good_orders(2)).to_json())
    lost = LiveContracts(account.parts.settings.contracts_root, ObjectStore("landing", "no-such-bucket"))
    waiting = Account(replace(account.parts, read_contracts=lost.read))
    assert not drain(World(waiting))
    assert (account.keys("receipts/"), account.messages()) == ([], 1)


# --- publishing and rolling back --------------------------------------------------------------------------------------


def test_each_rollback_restores_the_version_before_and_the_last_one_that_of_the_image(store: ObjectStore) -> None:
    texts = [f"dataset: orders\ndescription: {number}\n" for number in range(3)]
    for text in texts:
        publish(store, text)
    for expected in [texts[1], texts[0], None]:
        live = published.live_contract(store, "orders")
        assert live
        published.roll_back(store, "orders", live, published.version_before(store, "orders", live))
        found = published.live_contract(store, "orders")
        assert (found.body.decode() if found else None) == expected
    with pytest.raises(NothingToRollBack):
        published.version_before(store, "orders", None)


def test_the_version_before_one_that_follows_a_rollback_is_the_restored_one(store: ObjectStore) -> None:
    for text in (OPEN, STRICT):
        publish(store, text)
    live = published.live_contract(store, "orders")
    assert live
    published.roll_back(store, "orders", live, published.version_before(store, "orders", live))
    publish(store, "dataset: orders\ndescription: third\n")
    before = published.version_before(store, "orders", published.live_contract(store, "orders"))
    assert before
    assert before.body.decode() == OPEN


def test_publishing_over_a_contract_that_changed_meanwhile_is_an_error(store: ObjectStore) -> None:
    publish(store, OPEN)
    seen = published.live_contract(store, "orders")
    publish(store, STRICT)
    with pytest.raises(ContractMoved):
        published.publish(store, "orders", OPEN, seen)
    with pytest.raises(ContractMoved):
        published.publish(store, "orders", OPEN, None)


def test_a_rollback_to_the_image_removes_no_contract_that_was_published_meanwhile(store: ObjectStore) -> None:
    publish(store, OPEN)
    seen = published.live_contract(store, "orders")
    assert seen
    before = published.version_before(store, "orders", seen)
    publish(store, STRICT)
    with pytest.raises(ContractMoved):
        published.roll_back(store, "orders", seen, before)
    live = published.live_contract(store, "orders")
    assert live
    assert live.body.decode() == STRICT


def test_rolling_back_to_a_deleted_or_unknown_version_is_an_error(store: ObjectStore) -> None:
    s3, key = boto3.client("s3"), f"{published.LIVE}orders.yaml"
    for text in (OPEN, STRICT):
        publish(store, text)
    live = published.live_contract(store, "orders")
    assert live
    s3.delete_object(Bucket=PUBLISHED, Key=key, VersionId=live.metadata["replaces"])
    with pytest.raises(NothingToRollBack):
        published.version_before(store, "orders", live)
    s3.put_object(Bucket=PUBLISHED, Key=key, Body=OPEN.encode())
    with pytest.raises(NothingToRollBack):
        published.version_before(store, "orders", published.live_contract(store, "orders"))


# --- from a receipt to its contract's text ----------------------------------------------------------------------------


def test_the_contract_that_judged_a_file_is_found_by_the_hash_in_its_receipt(
    account: Account, store: ObjectStore
) -> None:
    publish(store, STRICT)
    used = account.process(account.upload(KEY, good_orders(2))).contract
    assert published.used_contract(store, used.content_hash) == STRICT
    assert published.used_contract(store, used.content_hash[:8], "orders") == STRICT
    shipped = account.process(account.upload("incoming/penguins/a.csv", b"species\n1\n")).contract
    assert published.used_contract(store, shipped.content_hash).startswith("# ")
    assert published.live_or_last_used(store, "penguins") == published.used_contract(store, shipped.content_hash)
    with pytest.raises(ContractNotKept):
        published.used_contract(store, "0" * 64)


def test_a_contract_that_was_changed_for_one_run_is_kept_and_is_not_the_last_used_one(
    account: Account, store: ObjectStore, tmp_path: Path
) -> None:
    orders = account.parts.contracts.named("orders")
    account.process(account.upload(KEY, good_orders(2)))
    changed = overridden(orders, {"bad_rows": {"max_fraction": 0.25}, "description": "für heute"})
    used = account.process(account.upload("incoming/orders/2.csv", good_orders(2)), contract=changed).contract
    text = published.used_contract(store, used.content_hash)
    assert parse_contract(text.encode(), "kept.yaml", orders.folder or tmp_path).content_hash == used.content_hash
    assert published.live_or_last_used(store, "orders") == (orders.document.text if orders.document else "")


def test_an_invalid_contract_of_the_image_does_not_reject_the_file(account: Account, tmp_path: Path) -> None:
    for name, more in {"default": "", "orders": "expectations: [expect_column_to_shine]\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "contract.yaml").write_text(f"dataset: {name}\n{more}")
    live = LiveContracts(tmp_path, account.parts.store)
    broken = Account(replace(account.parts, read_contracts=live.read))
    upload = account.upload(KEY, good_orders(2))
    with pytest.raises(ContractUnusable):
        broken.process(upload)
    assert account.receipt(upload) is None


SHOWS_ITS_KEYS = {
    "expectation that the release lacks": "dataset: orders\nexpectations: [expect_column_to_shine]\n",
    "wrong value": "dataset: orders\non_reupload: never\n",
    "misspelt field next to a source": "dataset: orders\nsource: incoming/orders/*\ncolums: {a: text}\n",
}
HIDES_ITS_KEYS = {
    "misspelt field, which may be source": "dataset: orders\nsources: incoming/shop/**\n",
    "name of another dataset": "dataset: shop\n",
    "source that is not a string": "dataset: orders\nsource: [incoming/shop/**, 7]\n",
    "not YAML": "dataset: [orders\n",
}


@pytest.fixture
def shipped(account: Account, store: ObjectStore, clock: Clock, tmp_path: Path) -> Callable[[str], Account]:
    """Return a function that returns the account with an image in which the contract for orders has the given text."""

    def ship(text: str) -> Account:
        for name, content in {"default": "dataset: default\n", "orders": text}.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "contract.yaml").write_text(content)
        live = LiveContracts(tmp_path, store, clock)
        return Account(replace(account.parts, read_contracts=live.read, keep_contract=live.keep))

    return ship


@pytest.mark.parametrize("fault", SHOWS_ITS_KEYS)
def test_an_invalid_contract_of_the_image_stops_only_its_own_files(
    shipped: Callable[[str], Account], fault: str
) -> None:
    task = shipped(SHOWS_ITS_KEYS[fault])
    with pytest.raises(ContractUnusable):
        task.process(task.upload(KEY, good_orders(2)))
    assert task.process(task.upload("incoming/other/a.csv", b"a\n1\n")).status is Status.PUBLISHED


@pytest.mark.parametrize("fault", HIDES_ITS_KEYS)
def test_no_file_is_judged_by_another_contract_while_a_fault_hides_the_sources_of_its_own(
    shipped: Callable[[str], Account], fault: str
) -> None:
    task = shipped(HIDES_ITS_KEYS[fault])
    with pytest.raises(ContractUnusable):
        task.process(task.upload("incoming/shop/a.csv", b"a\n1\n"))


@pytest.mark.parametrize("fault", [*SHOWS_ITS_KEYS.values(), *HIDES_ITS_KEYS.values()])
def test_a_published_contract_replaces_an_invalid_one_of_the_image(
    shipped: Callable[[str], Account], store: ObjectStore, fault: str
) -> None:
    publish(store, OPEN)
    task = shipped(fault)
    assert task.process(task.upload(KEY, good_orders(2))).status is Status.PUBLISHED
    assert task.process(task.upload("incoming/other/a.csv", b"a\n1\n")).status is Status.PUBLISHED


def test_an_unusable_contract_is_reported_with_its_fault_and_not_listed(account: Account, store: ObjectStore) -> None:
    publish(store, "dataset: orders\nfaulty: yes\n")
    with pytest.raises(ContractInvalid, match="faulty"):
        account.parts.contracts.named("orders")
    assert "orders" not in [each.dataset for each in account.parts.contracts]
