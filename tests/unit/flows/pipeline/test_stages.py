"""An upload passes through its stages without Prefect, and every failure leaves a consistent state."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

import flows.pipeline.commit
import flows.pipeline.stages
from blocks import object_store
from blocks.object_store import ObjectFacts, ObjectStore
from flows.composition import assemble
from flows.pipeline.errors import OutOfMemory, StageBroke
from flows.pipeline.job import Published, UploadJob
from flows.pipeline.receipt import Chain, Receipt, Status
from flows.pipeline.run import run_upload
from flows.pipeline.stages import ObjectReplaced, ObjectTooLarge, fetch
from flows.refinery.checks import RejectionReason
from flows.refinery.contract.loading import Contracts
from flows.refinery.errors import FileRejected
from flows.refinery.read.remote_file import size_of
from flows.refinery.refine import Refined
from flows.refinery.validate.gx import gx
from lambda_trigger.message import UploadMessage
from tests.chain.files import dirty_orders, good_orders
from tests.unit.flows.conftest import Account

KEY = "incoming/orders/monday.csv"
OTHER_KEY = "incoming/other/x.csv"


def test_a_good_file_is_published_and_its_receipt_committed(account: Account) -> None:
    upload = account.upload(KEY, good_orders(3))
    receipt = account.process(upload)
    assert receipt.status is Status.PUBLISHED
    assert account.receipt(upload) == receipt
    assert account.keys("data/") == [receipt.outputs[0].key]


def test_every_row_is_accounted_for(account: Account) -> None:
    receipt = account.process(account.upload(KEY, dirty_orders()))
    rows = receipt.rows
    assert (rows.rows_in, rows.published, rows.quarantined_total, rows.dropped_total) == (12, 9, 2, 1)
    quarantine = [output for output in receipt.outputs if output.kind == "quarantine"]
    assert [output.rows for output in quarantine] == [2]


def test_a_rejected_file_publishes_nothing_and_gives_the_reason(account: Account) -> None:
    receipt = account.process(account.upload(KEY, b""))
    assert receipt.status is Status.REJECTED
    assert receipt.reason
    assert account.keys("data/") == []
    assert account.keys("quarantine/") == []


def test_the_receipt_records_how_the_file_was_read(account: Account) -> None:
    receipt = account.process(account.upload(KEY, good_orders(1)))
    read_as = {decision.name: (decision.value, decision.basis) for decision in receipt.read_as}
    assert read_as["encoding"] == ("utf-8", "proven")
    assert read_as["header on line"] == (1, "proven")


def test_the_stages_are_timed(account: Account) -> None:
    receipt = account.process(account.upload(KEY, good_orders(1)))
    assert set(receipt.timings_seconds) == {"fetch", "refine", "publish"}


def test_an_upload_with_a_receipt_is_not_processed_again(account: Account) -> None:
    upload = account.upload(KEY, good_orders(1))
    first = account.process(upload)
    assert run_upload(account.parts, UploadJob(upload), lambda stage, *_: pytest.fail(stage.__name__)) == first


def test_a_forced_attempt_replaces_receipt_and_output(account: Account) -> None:
    upload = account.upload(KEY, good_orders(1))
    account.process(upload)
    again = account.process(replace(upload, attempt=1))
    assert again.attempt == 1
    assert account.keys("data/") == [again.outputs[0].key]
    assert again.outputs[0].key.startswith(f"data/orders/{upload.run_id}-1-")


def test_if_a_worker_dies_after_the_receipt_the_next_one_removes_the_replaced_output(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = account.upload(KEY, good_orders(1), sequencer="0001")
    account.process(first)
    second = account.upload(KEY, good_orders(2), sequencer="0002")
    with monkeypatch.context() as patch:
        patch.setattr(flows.pipeline.commit, "settle", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            account.process(second)
    assert len(account.keys("data/")) == 2
    receipt = account.process(second)
    assert account.keys("data/") == [receipt.outputs[0].key]


def test_a_retry_after_a_crash_before_the_receipt_publishes_the_same_bytes(account: Account) -> None:
    upload = account.upload(KEY, good_orders(50))
    before: list[Published] = []

    def die_before_the_receipt(stage: Callable[..., Any], *values: Any) -> Any:
        if stage.__name__ == "record":
            raise KeyboardInterrupt
        result = stage(*values)
        before.extend([result] if isinstance(result, Published) else [])
        return result

    with pytest.raises(KeyboardInterrupt):
        run_upload(account.parts, UploadJob(upload), die_before_the_receipt)
    receipt = account.process(upload)
    assert receipt.outputs == before[0].outputs


def test_a_given_contract_is_used_whatever_the_key(account: Account) -> None:
    orders = account.parts.contracts.named("orders")
    receipt = account.process(account.upload("elsewhere/x.csv", good_orders(1)), contract=orders)
    assert (receipt.contract.dataset, receipt.contract.is_default) == ("orders", False)


def test_outputs_of_the_default_contract_are_separated_by_folder(account: Account) -> None:
    receipt = account.process(account.upload("incoming/New Things/x.csv", b"First Name,Age\nAda,36\n"))
    assert receipt.contract.is_default
    (output,) = receipt.outputs
    assert output.key == f"data/default/new-things/{receipt.run_id}-0-{output.sha256[:16]}.parquet"


def test_a_file_whose_name_ends_in_a_slash_is_processed_like_any_other(account: Account) -> None:
    receipt = account.process(account.upload("incoming/other/", b"a\n1\n"))
    assert receipt.rows.published == 1
    assert receipt.outputs[0].key.startswith("data/default/other/")


def test_the_receipt_records_whether_prefect_observed(account: Account) -> None:
    unwatched = account.process(account.upload(KEY, good_orders(1)))
    watched = account.process(account.upload(KEY, good_orders(1)), chain=Chain(flow_run_id="f-1"))
    assert (unwatched.observed, watched.observed) == (False, True)


def test_an_unexpected_error_names_its_location_and_never_its_message(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ValueError("could not convert 'card 4111 1111 1111 1111'")

    monkeypatch.setattr(flows.pipeline.stages, "refine_file", stumble)
    upload = account.upload(KEY, good_orders(1))
    with pytest.raises(StageBroke) as caught:
        account.process(upload)
    assert "ValueError at test_stages.py" in str(caught.value)
    assert "4111" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert account.receipt(upload) is None


def test_rows_that_are_not_accounted_for_are_never_committed(account: Account) -> None:
    upload = account.upload(KEY, good_orders(3))

    def lose_a_row(stage: Callable[..., Any], *values: Any) -> Any:
        result = stage(*values)
        return replace(result, rows_in=4) if isinstance(result, Refined) else result

    with pytest.raises(StageBroke):
        run_upload(account.parts, UploadJob(upload), lose_a_row)
    assert account.receipt(upload) is None


def test_nothing_is_left_on_the_disk(account: Account, tmp_path: Path) -> None:
    folders = []

    def look(stage: Callable[..., Any], *values: Any) -> Any:
        folders.append(len(list(tmp_path.glob("sluice-*"))))
        return stage(*values)

    run_upload(account.parts, UploadJob(account.upload(KEY, good_orders(1))), look)
    assert folders == [1, 1, 1, 1]
    assert list(tmp_path.glob("sluice-*")) == []


def test_a_file_that_is_too_large_for_the_disk_is_published_without_a_copy(account: Account, tmp_path: Path) -> None:
    without_copies = Account(assemble(account.parts.settings.model_copy(update={"max_copy_fraction": 0})))
    uploads = [account.upload(f"incoming/orders/{name}.csv", good_orders(30_000)) for name in ("copied", "ranges")]
    copied, by_ranges = account.process(uploads[0]), without_copies.process(uploads[1])
    assert by_ranges.status is Status.PUBLISHED
    assert by_ranges.rows == copied.rows
    assert [output.sha256 for output in by_ranges.outputs] == [output.sha256 for output in copied.outputs]
    fetched = fetch(
        without_copies.parts, UploadJob(uploads[1]), account.parts.contracts.named("orders"), None, tmp_path
    )
    assert not list(tmp_path.iterdir())
    assert size_of(fetched.source) == uploads[1].size_bytes


def test_the_code_of_a_rejection_is_the_name_of_its_class() -> None:
    class HeaderMissing(FileRejected):
        """The file has no header."""

    assert RejectionReason.of(HeaderMissing("x")).code == "header_missing"


@pytest.fixture
def scaled(account: Account, tmp_path: Path) -> Account:
    """Return the account with a contract that scales a column."""
    folder = tmp_path / "contracts"
    (folder / "default").mkdir(parents=True)
    (folder / "scaled").mkdir()
    (folder / "default" / "contract.yaml").write_text("dataset: default\n")
    (folder / "scaled" / "contract.yaml").write_text("dataset: scaled\npreprocess:\n  - standardize: {columns: [x]}\n")
    settings = account.parts.settings.model_copy(update={"contracts_folder": folder})
    return Account(assemble(settings))


def test_what_a_step_was_fitted_to_is_stored_with_the_rows_and_deleted_with_them(scaled: Account) -> None:
    first = scaled.process(scaled.upload("incoming/scaled/x.csv", b"x\n1\n3\n", sequencer="0001"))
    (fitted,) = [output for output in first.outputs if output.kind == "fitted"]
    assert fitted.key.startswith("data/scaled/_fitted/")
    body = boto3.client("s3").get_object(Bucket="published", Key=fitted.key)["Body"].read()
    assert json.loads(body) == first.fitted
    second = scaled.process(scaled.upload("incoming/scaled/x.csv", b"x\n2\n8\n", sequencer="0002"))
    assert sorted(scaled.keys("data/")) == sorted(output.key for output in second.outputs)


# --- memory -----------------------------------------------------------------------------------------------------------

STEPS = """
import numpy as np

def greedy(frame):
    return frame.assign(y=np.ones(10**15))  # 8 PB: a real MemoryError
"""


def test_a_step_without_enough_memory_does_not_reject_the_file_and_a_retry_publishes_it(scaled: Account) -> None:
    folder = scaled.parts.settings.contracts_root / "scaled"
    (folder / "contract.yaml").write_text("dataset: scaled\npreprocess: [steps.greedy]\n")
    (folder / "steps.py").write_text(STEPS)
    upload = scaled.upload("incoming/scaled/x.csv", b"x\n1\n3\n")
    with pytest.raises(OutOfMemory):
        scaled.process(upload)
    assert scaled.receipt(upload) is None
    (folder / "steps.py").write_text(STEPS.replace("10**15", "len(frame)"))
    assert scaled.process(upload).status is Status.PUBLISHED


def test_an_expectation_without_enough_memory_does_not_reject_the_file(
    scaled: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scaled.parts.settings.contracts_root / "scaled"
    expectation = "expect_column_values_to_be_between: {column: x, min_value: 1}"
    (folder / "contract.yaml").write_text(f"dataset: scaled\nexpectations:\n  - {expectation}\n")
    monkeypatch.setattr(gx().ColumnValuesBetween, "_pandas_vectorized", lambda *_, **__: np.ones(10**15))
    upload = scaled.upload("incoming/scaled/x.csv", b"x\n1\n3\n")
    with pytest.raises(OutOfMemory):
        scaled.process(upload)
    assert scaled.receipt(upload) is None


def test_an_upload_whose_contract_was_removed_is_still_done(account: Account) -> None:
    """The message is delivered again, to a release without the contract. The receipt shows that it can be deleted."""
    upload = account.upload(KEY, good_orders(2))
    first = account.process(upload)
    contracts = account.parts.contracts
    contracts._by_name.pop("orders")
    contracts._globs = Contracts(contracts)._globs
    assert account.process(upload) == first
    assert account.keys("data/") == [first.outputs[0].key]


# --- buckets without versioning, and files that are too large ---------------------------------------------------------


@pytest.fixture
def unversioned(account: Account) -> UploadMessage:
    """Return an upload to a bucket without versioning."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="unversioned")
    etag = s3.put_object(Bucket="unversioned", Key=OTHER_KEY, Body=b"a\n1\n")["ETag"].strip('"')
    return UploadMessage(bucket="unversioned", key=OTHER_KEY, version_id=None, etag=etag, size_bytes=4)


def reasons_of(receipt: Receipt) -> list[str]:
    return [reason.code for reason in receipt.reasons]


def test_without_versioning_an_overwritten_object_is_not_mistaken_for_the_upload(
    account: Account, unversioned: UploadMessage
) -> None:
    boto3.client("s3").put_object(Bucket="unversioned", Key=OTHER_KEY, Body=b"second")
    assert reasons_of(account.process(unversioned)) == [ObjectReplaced.code]


def after_the_download(patch: pytest.MonkeyPatch, do: Callable[[], Any]) -> None:
    """Call `do` after each download of an upload from the landing bucket."""
    download = ObjectStore.download

    def download_and_do(store: ObjectStore, *given: Any, **more: Any) -> ObjectFacts:
        facts = download(store, *given, **more)
        do()
        return facts

    patch.setattr(ObjectStore, "download", download_and_do)


def test_without_versioning_an_object_that_is_overwritten_while_it_is_read_is_not_mistaken_for_the_upload(
    account: Account, unversioned: UploadMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite = partial(boto3.client("s3").put_object, Bucket="unversioned", Key=OTHER_KEY, Body=b"other")
    after_the_download(monkeypatch, overwrite)
    assert reasons_of(account.process(unversioned)) == [ObjectReplaced.code]


def test_without_versioning_an_object_that_is_deleted_once_it_was_read_is_not_lost(
    account: Account, unversioned: UploadMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_the_download(monkeypatch, partial(boto3.client("s3").delete_object, Bucket="unversioned", Key=OTHER_KEY))
    assert account.process(unversioned).rows.published == 1


def test_a_file_above_the_limit_is_not_downloaded(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_write", lambda *_: pytest.fail("it was downloaded"))
    limited = Account(assemble(account.parts.settings.model_copy(update={"max_object_bytes": 10})))
    assert reasons_of(limited.process(account.upload(KEY, b"x" * 11))) == [ObjectTooLarge.code]
