"""Reading a dataset returns the rows that are current according to the index and the receipts, exactly as published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pandas as pd
import pyarrow as pa
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from blocks.object_store import ObjectStore
from blocks.settings import SettingsMissing
from flows.pipeline.commit import index_entry
from flows.pipeline.protocol import index_key
from flows.pipeline.receipt import Receipt, Status, receipt_key
from flows.pipeline.run_ids import RunUnknown
from flows.published import IncompleteRead, _client_with, read_frame, read_table
from flows.published.current import NothingProcessed, RunNotCurrent
from flows.published.rows import RUN_ID, SOURCE_KEY, PublishedRows, Selection, published_rows
from flows.published.schemas import ColumnsDiffer
from tests.unit.flows.conftest import LANDING, PUBLISHED, Account
from tests.unit.flows.published.conftest import Declare

STOCK = "columns: {item: string, pieces: {type: integer, nullable: false}}\n"


def stock(account: Account, name: str, *lines: str, sequencer: str = "0001") -> Receipt:
    body = "item,pieces\n" + "".join(f"{line}\n" for line in lines)
    return account.process(account.upload(f"incoming/stock/{name}", body.encode(), sequencer))


def rows(**options: Any) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = read_table("stock", bucket=PUBLISHED, **options).to_pylist()
    return read


def items(**options: Any) -> list[str]:
    return [row["item"] for row in rows(**options)]


@contextmanager
def opened(account: Account, **options: Any) -> Iterator[PublishedRows]:
    with published_rows(account.parts.store, "stock", Selection(**options)) as read:
        yield read


def kept_for(days: int, *folders: str) -> None:
    """Make objects below these folders of the published bucket expire after `days`, as `sluice deploy` does."""
    rules: Any = [
        {"ID": folder, "Status": "Enabled", "Filter": {"Prefix": folder}, "Expiration": {"Days": days}}
        for folder in folders
    ]
    boto3.client("s3").put_bucket_lifecycle_configuration(Bucket=PUBLISHED, LifecycleConfiguration={"Rules": rules})


def aged(account: Account, receipt: Receipt, days: int) -> Receipt:
    """Make a receipt `days` old and delete its outputs, as if they had expired; return the changed receipt."""
    created = datetime.now(UTC) - timedelta(days=days)
    old = receipt.model_copy(update={"created_at": created.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
    account.parts.store.put(receipt_key(receipt.run_id), old.to_json())
    for output in receipt.outputs:
        account.parts.store.delete(output.key)
    return old


# --- what is current --------------------------------------------------------------------------------------------------


def test_rows_of_all_files_are_read_in_the_order_of_their_keys(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "b.csv", "nail,3")
    stock(account, "a.csv", "bolt,1", "nut,2")
    assert rows() == [
        {"item": "bolt", "pieces": 1},
        {"item": "nut", "pieces": 2},
        {"item": "nail", "pieces": 3},
    ]


def test_a_reupload_replaces_the_rows_that_are_read(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,1")
    stock(account, "a.csv", "nut,2", sequencer="0002")
    assert items() == ["nut"]


def test_a_rejected_reupload_leaves_the_last_good_rows(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,1")
    assert account.process(account.upload("incoming/stock/a.csv", b"", "0002")).status is Status.REJECTED
    assert items() == ["bolt"]


def test_a_forced_rerun_that_rejects_the_file_leaves_no_rows(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    message = account.upload("incoming/stock/a.csv", b"item,pieces\nbolt,1\n")
    account.process(message)
    declare("stock", "columns: {item: string, pieces: integer, shelf: {type: string, nullable: false}}\n")
    assert account.process(replace(message, attempt=1)).status is Status.REJECTED
    assert account.keys("data/") == []
    assert items() == []
    assert read_table("stock", bucket=PUBLISHED, with_source=True).column_names == [RUN_ID, SOURCE_KEY]


def test_replaced_data_that_is_still_there_is_not_read(
    account: Account, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died after it wrote the index, but before it deleted the old output."""
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,1")
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "delete", lambda *_: None)
        stock(account, "a.csv", "nut,2", sequencer="0002")
    assert len(account.keys("data/")) == 2
    assert items() == ["nut"]


def test_a_dataset_that_appends_shows_every_version(account: Account, declare: Declare) -> None:
    declare("stock", STOCK + "on_reupload: append\n")
    stock(account, "a.csv", "bolt,1")
    stock(account, "a.csv", "nut,2", sequencer="0002")
    assert sorted(items()) == ["bolt", "nut"]


def test_a_version_of_a_dataset_that_appends_is_withdrawn_alone(account: Account, declare: Declare) -> None:
    declare("stock", STOCK + "on_reupload: append\n")
    first = account.upload("incoming/stock/a.csv", b"item,pieces\nbolt,1\n")
    account.process(first)
    stock(account, "a.csv", "nut,2", sequencer="0002")
    declare("stock", "columns: {item: string, pieces: integer, shelf: {type: string, nullable: false}}\n")
    account.process(replace(first, attempt=1))
    assert items() == ["nut"]


def test_a_file_that_is_replaced_while_it_is_fetched_is_read_in_its_new_version(
    account: Account, declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,1")
    download = ObjectStore.download

    def replaced_before(store: ObjectStore, *where: Any, **options: Any) -> None:
        monkeypatch.setattr(ObjectStore, "download", download)
        stock(account, "a.csv", "nut,2", sequencer="0002")
        download(store, *where, **options)

    monkeypatch.setattr(ObjectStore, "download", replaced_before)
    assert items() == ["nut"]


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_an_unknown_dataset_is_rejected_with_the_nearest_name(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,1")
    with pytest.raises(NothingProcessed) as refused:
        read_table("stokc", bucket=PUBLISHED)
    assert "'stock'?" in str(refused.value)


def broken_index(account: Account, receipt: Receipt) -> str:
    return index_key("stock", LANDING, receipt.source.key)


def broken_receipt(account: Account, receipt: Receipt) -> str:
    return receipt_key(receipt.run_id)


@pytest.mark.parametrize("key_of", [broken_index, broken_receipt])
def test_an_unreadable_object_is_listed_and_the_rest_is_read(account: Account, declare: Declare, key_of: Any) -> None:
    declare("stock", STOCK)
    broken = key_of(account, stock(account, "a.csv", "bolt,1"))
    stock(account, "b.csv", "nut,2")
    account.parts.store.put(broken, '{"schema": 99}')
    with pytest.warns(IncompleteRead, match=f"s3://{PUBLISHED}/{broken}"):
        assert items() == ["nut"]


@pytest.mark.parametrize("kind", ["receipt", "data"])
def test_an_object_that_is_missing_is_listed(account: Account, declare: Declare, kind: str) -> None:
    declare("stock", STOCK)
    receipt = stock(account, "a.csv", "bolt,1")
    key = receipt_key(receipt.run_id) if kind == "receipt" else receipt.outputs[0].key
    account.parts.store.delete(key)
    with opened(account) as read:
        assert read.table().num_rows == 0
        assert list(read.unreadable) == [f"s3://{PUBLISHED}/{key}"]


# --- selections by run, quarantine and source -------------------------------------------------------------------------


@pytest.mark.parametrize("length", [8, 32])
def test_one_run_is_read_by_its_id_or_the_beginning_of_it(account: Account, declare: Declare, length: int) -> None:
    declare("stock", STOCK)
    receipt = stock(account, "a.csv", "bolt,1")
    stock(account, "b.csv", "nut,2")
    assert items(run=receipt.run_id[:length]) == ["bolt"]


@pytest.mark.parametrize("run", ["a.csv", "00000000", "0" * 32])
def test_a_run_that_does_not_exist_is_rejected(account: Account, declare: Declare, run: str) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,1")
    with pytest.raises(RunNotCurrent if len(run) == 32 else RunUnknown):
        rows(run=run)


def test_a_replaced_run_is_rejected_with_the_run_that_replaced_it(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    old = stock(account, "a.csv", "bolt,1")
    new = stock(account, "a.csv", "nut,2", sequencer="0002")
    with pytest.raises(RunNotCurrent) as refused:
        rows(run=old.run_id)
    assert new.run_id in str(refused.value)


def test_a_rejected_run_is_rejected_with_its_reason(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    rejected = account.process(account.upload("incoming/stock/a.csv", b""))
    with pytest.raises(RunNotCurrent) as refused:
        rows(run=rejected.run_id)
    assert rejected.reason in str(refused.value)


def test_the_quarantine_of_current_runs_is_read(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,one", "nut,2")
    (row,) = rows(quarantine=True)
    assert (row["_row_number"], row["_rules"], row["pieces"]) == (1, ["not_an_integer(pieces)"], "one")
    stock(account, "a.csv", "bolt,1", sequencer="0002")
    assert rows(quarantine=True) == []


def test_each_row_names_its_run_and_its_file_on_request(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    runs = [stock(account, name, "bolt,1").run_id for name in ("a.csv", "b.csv")]
    assert [(row[RUN_ID], row[SOURCE_KEY]) for row in rows(with_source=True)] == [
        (runs[0], "incoming/stock/a.csv"),
        (runs[1], "incoming/stock/b.csv"),
    ]


def test_files_whose_rows_have_expired_are_counted_and_not_unreadable(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    aged(account, stock(account, "a.csv", "bolt,1"), days=31)
    stock(account, "b.csv", "nut,2")
    kept_for(30, "data/stock/")
    assert items(limit=1) == ["nut"], "a limit is filled by files that have rows"
    with opened(account) as read:
        assert (read.rows, read.files, read.expired, read.kept_days, read.unreadable) == (1, 1, 1, 30, {})


def test_a_run_whose_rows_have_expired_is_rejected_with_the_days(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    old = aged(account, stock(account, "a.csv", "bolt,1"), days=31)
    kept_for(30, "data/")
    with pytest.raises(RunNotCurrent, match="data/stock/ is kept for 30 days"):
        rows(run=old.run_id)


def test_a_quarantine_that_has_expired_hides_no_published_rows(account: Account, declare: Declare) -> None:
    declare("stock", f"{STOCK}bad_rows: {{policy: quarantine, max_fraction: 0.9}}\n")
    receipt = stock(account, "a.csv", "bolt,1", "nut,none")
    kept_for(1, "quarantine/stock/", "data/other/")
    (bad,) = (output for output in receipt.outputs if output.kind == "quarantine")
    account.parts.store.put(
        receipt_key(receipt.run_id), receipt.model_copy(update={"created_at": "2026-01-01T00:00:00.000000Z"}).to_json()
    )
    account.parts.store.delete(bad.key)
    assert items() == ["bolt"]
    with opened(account, quarantine=True) as read:
        assert (read.rows, read.expired, read.unreadable) == (0, 1, {})


def test_rows_that_are_missing_before_they_expire_are_unreadable(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    aged(account, stock(account, "a.csv", "bolt,1"), days=29)
    kept_for(30, "data/stock/")
    with opened(account) as read:
        assert (read.expired, len(read.unreadable)) == (0, 1)


def test_a_column_of_the_data_is_not_replaced_by_its_source(account: Account, declare: Declare) -> None:
    declare("stock", f"columns: {{{RUN_ID}: string}}\n")
    account.process(account.upload("incoming/stock/a.csv", f"{RUN_ID},b\nx,y\n".encode()))
    assert rows() == [{RUN_ID: "x", "b": "y"}]
    with pytest.raises(ColumnsDiffer):
        rows(with_source=True)


def test_a_limit_fetches_no_more_files_than_it_needs(account: Account, declare: Declare, monkeypatch: Any) -> None:
    declare("stock", STOCK)
    for name in "abcd":
        stock(account, f"{name}.csv", "bolt,1", "nut,2")
    fetched: list[str] = []
    download = ObjectStore.download

    def counted(store: ObjectStore, bucket: str, key: str, *where: Any, **options: Any) -> None:
        fetched.append(key)
        download(store, bucket, key, *where, **options)

    monkeypatch.setattr(ObjectStore, "download", counted)
    with opened(account, limit=3) as read:
        assert read.table()["item"].to_pylist() == ["bolt", "nut", "bolt"]
        assert (read.rows, read.files) == (8, 4)
    assert len(fetched) == 2


# --- columns ----------------------------------------------------------------------------------------------------------


def test_columns_of_several_runs_are_joined_by_name(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,1")
    declare("stock", "columns: {shelf: string, pieces: number, item: string}\n")
    account.process(account.upload("incoming/stock/b.csv", b"shelf,pieces,item\nA1,2.5,nut\n"))
    assert rows() == [{"item": "bolt", "pieces": 1.0, "shelf": None}, {"item": "nut", "pieces": 2.5, "shelf": "A1"}]


def test_a_column_without_values_in_one_run_has_the_type_of_the_others(account: Account, declare: Declare) -> None:
    declare("stock", "columns: {item: string}\nunknown_columns: evolve\n")
    account.process(account.upload("incoming/stock/a.csv", b"item,pieces\nbolt,\n"))
    account.process(account.upload("incoming/stock/b.csv", b"item,pieces\nnut,2\n"))
    assert [row["pieces"] for row in rows()] == [None, 2]


def test_types_that_cannot_be_joined_are_rejected_with_dataset_column_and_runs(
    account: Account, declare: Declare
) -> None:
    declare("stock", STOCK)
    runs = [stock(account, "a.csv", "bolt,1")]
    declare("stock", "columns: {item: string, pieces: string}\n")
    runs.append(stock(account, "b.csv", "nut,two"))
    with pytest.raises(ColumnsDiffer) as refused:
        rows()
    assert all(name in str(refused.value) for name in ("stock", "'pieces'", *(run.run_id for run in runs)))
    assert items(run=runs[0].run_id) == ["bolt"]


def test_an_integer_that_no_float_can_represent_is_rejected_and_not_rounded(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    large = stock(account, "a.csv", f"bolt,{2**53 + 1}")
    declare("stock", "columns: {item: string, pieces: number}\n")
    stock(account, "b.csv", "nut,2.5")
    with pytest.raises(ColumnsDiffer) as refused:
        rows()
    assert all(name in str(refused.value) for name in ("stock", "'pieces'", large.run_id))


def test_partition_folders_are_read_as_columns(account: Account, declare: Declare) -> None:
    declare("stock", STOCK + "output: {partition_by: [item]}\n")
    stock(account, "a.csv", "a/b c,1", ",2", "ü=,3")
    assert sorted(rows(), key=lambda row: row["pieces"]) == [
        {"pieces": 1, "item": "a/b c"},
        {"pieces": 2, "item": None},
        {"pieces": 3, "item": "ü="},
    ]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_dataset_published_as_csv_is_read_as_strings(account: Account, declare: Declare, compression: str) -> None:
    declare("stock", STOCK + f"output: {{format: csv, compression: {compression}}}\n")
    stock(account, "a.csv", '"bolt, ""M8""\nzinc",007', ",2")
    assert rows() == [{"item": 'bolt, "M8"\nzinc', "pieces": "7"}, {"item": None, "pieces": "2"}]


def test_a_missing_value_in_the_only_column_of_a_csv_file_is_a_row(account: Account, declare: Declare) -> None:
    declare("stock", STOCK + "preprocess: [{select: {columns: [item]}}]\noutput: {format: csv}\n")
    stock(account, "a.csv", "bolt,1", ",2", "nut,3")
    assert items() == ["bolt", None, "nut"]


def test_files_without_rows_are_read(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv")
    stock(account, "b.csv", "bolt,1")
    assert rows() == [{"item": "bolt", "pieces": 1}]


def test_a_frame_keeps_integers_booleans_and_dates_next_to_missing_values(account: Account, declare: Declare) -> None:
    declare("stock", "columns: {item: string, pieces: integer, sold: boolean, day: date}\n")
    body = b"item,pieces,sold,day\nbolt,9007199254740993,true,2026-01-31\nnut,,,\n"
    account.process(account.upload("incoming/stock/a.csv", body))
    frame = read_frame("stock", bucket=PUBLISHED)
    assert frame["pieces"].tolist() == [2**53 + 1, pd.NA]
    assert frame["sold"].tolist() == [True, pd.NA]
    assert frame["day"].tolist() == [pd.Timestamp(2026, 1, 31), pd.NaT]


def test_files_of_the_default_contract_are_read_without_a_column_for_their_folder(
    account: Account, declare: Declare
) -> None:
    declare("stock", STOCK)
    account.process(account.upload("incoming/a=b/x.csv", b"item\nbolt\n"))
    assert read_table("default", bucket=PUBLISHED).to_pylist() == [{"item": "bolt"}]


# --- memory, listings and buckets -------------------------------------------------------------------------------------


def test_batches_are_bounded(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", *(f"bolt,{number}" for number in range(150_000)))
    with opened(account) as read:
        sizes = [batch.num_rows for batch in read.batches()]
    assert (sum(sizes), max(sizes) <= 65_536) == (150_000, True)


def test_an_object_that_no_receipt_names_is_not_read(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    receipt = stock(account, "a.csv", "bolt,1")
    boto3.client("s3").put_object(Bucket=PUBLISHED, Key="data/stock/left-behind.parquet", Body=b"PAR1")
    assert items() == ["bolt"]
    entry = index_entry(account.parts.store, receipt)
    assert entry
    assert entry.appended == ()


def test_a_dataset_can_be_read_with_a_given_client(account: Account, declare: Declare) -> None:
    declare("stock", STOCK)
    stock(account, "a.csv", "bolt,1")
    assert rows(client=boto3.client("s3"))
    assert isinstance(read_table("stock", bucket=PUBLISHED, client=boto3.client("s3")), pa.Table)


def test_without_a_prefect_server_the_variable_to_set_is_named() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(SettingsMissing) as refused:
        read_table("stock")
    assert "PREFECT_API_URL" in str(refused.value)


def block(**fields: Any) -> AwsCredentials:
    return AwsCredentials(region_name="eu-central-1", aws_client_parameters=fields)


def keys_of(client: Any) -> str:
    return str(client._request_signer._credentials.access_key)


def test_the_local_cloud_never_sees_the_keys_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACALLER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert keys_of(_client_with(block(endpoint_url="http://127.0.0.1:4566"))) == "test"
    assert keys_of(_client_with(block())) == "AKIACALLER"
    kept = block().model_copy(update={"aws_access_key_id": "AKIABLOCK", "aws_secret_access_key": SecretStr("s")})
    assert keys_of(_client_with(kept)) == "AKIABLOCK"
