"""One upload through its stages, without Prefect."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

import flows.pipeline.stages
from flows.composition import assemble
from flows.pipeline.receipt import Chain, Receipt, Status
from flows.pipeline.stages import OutOfMemory, StageBroke, UploadRun, code_of
from flows.refinery.contract.loading import Contracts
from flows.refinery.errors import FileRejected
from flows.refinery.validate.gx import gx
from lambda_trigger.message import UploadMessage
from tests.chain.files import dirty_orders, good_orders
from tests.unit.flows.conftest import Account

KEY = "incoming/orders/monday.csv"


def process(account: Account, upload: UploadMessage, **options: Any) -> Receipt:
    with UploadRun(account.pipeline, upload, **options) as run:
        return run.run()


def test_a_good_file_is_published_and_its_receipt_committed(account: Account) -> None:
    upload = account.upload(KEY, good_orders(3))
    receipt = process(account, upload)
    assert receipt.status is Status.PUBLISHED
    assert account.pipeline.store.receipt(upload.run_id) == receipt
    assert account.keys("data/") == [receipt.outputs[0].key]


def test_every_row_is_accounted_for(account: Account) -> None:
    receipt = process(account, account.upload(KEY, dirty_orders()))
    rows = receipt.rows
    assert (rows.rows_in, rows.published, rows.quarantined_total, rows.dropped_total) == (12, 9, 2, 1)
    quarantine = [output for output in receipt.outputs if output.kind == "quarantine"]
    assert [output.rows for output in quarantine] == [2]


def test_a_rejected_file_publishes_nothing_and_says_why(account: Account) -> None:
    receipt = process(account, account.upload(KEY, b""))
    assert receipt.status is Status.REJECTED
    assert receipt.reason
    assert account.keys("data/") == []
    assert account.keys("quarantine/") == []


def test_the_stages_are_timed(account: Account) -> None:
    receipt = process(account, account.upload(KEY, good_orders(1)))
    assert {"fetch", "validate", "refine", "publish"} <= set(receipt.timings_seconds)


def test_an_upload_with_a_receipt_is_not_processed_again(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = account.upload(KEY, good_orders(1))
    first = process(account, upload)
    monkeypatch.setattr(UploadRun, "fetch", lambda _: pytest.fail("it was fetched again"))
    assert process(account, upload) == first


def test_a_forced_attempt_replaces_receipt_and_output(account: Account) -> None:
    upload = account.upload(KEY, good_orders(1))
    process(account, upload)
    again = process(account, replace(upload, attempt=1))
    assert again.attempt == 1
    assert account.keys("data/") == [again.outputs[0].key]
    assert again.outputs[0].key.startswith(f"data/orders/{upload.run_id}-1-")


def test_a_worker_that_dies_after_the_receipt_leaves_only_the_index_to_do(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = account.upload(KEY, good_orders(1), sequencer="0001")
    process(account, first)
    second = account.upload(KEY, good_orders(2), sequencer="0002")
    with monkeypatch.context() as patch:
        patch.setattr(UploadRun, "settle", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            process(account, second)
    assert len(account.keys("data/")) == 2
    receipt = process(account, second)
    assert account.keys("data/") == [receipt.outputs[0].key]


def test_a_retry_after_a_crash_before_the_receipt_publishes_the_same_bytes(account: Account) -> None:
    upload = account.upload(KEY, good_orders(50))
    with UploadRun(account.pipeline, upload) as dead:
        dead.fetch(), dead.validate(), dead.refine()
        before = dead.publish()
    receipt = process(account, upload)
    assert receipt.outputs == before


def test_the_contract_named_by_a_person_judges_whatever_the_key(account: Account) -> None:
    orders = account.pipeline.contracts.named("orders")
    receipt = process(account, account.upload("elsewhere/x.csv", good_orders(1)), contract=orders)
    assert (receipt.contract.dataset, receipt.contract.is_default) == ("orders", False)


def test_a_file_under_no_contract_is_kept_apart_by_its_folder(account: Account) -> None:
    receipt = process(account, account.upload("incoming/New Things/x.csv", b"First Name,Age\nAda,36\n"))
    assert receipt.contract.is_default
    (output,) = receipt.outputs
    assert output.key == f"data/default/new-things/{receipt.run_id}-0-{output.sha256[:16]}.parquet"


def test_a_file_whose_name_ends_in_a_slash_is_processed_as_any_other(account: Account) -> None:
    receipt = process(account, account.upload("incoming/other/", b"a\n1\n"))
    assert receipt.rows.published == 1
    assert receipt.outputs[0].key.startswith("data/default/other/")


def test_the_receipt_says_whether_prefect_watched(account: Account) -> None:
    unwatched = process(account, account.upload(KEY, good_orders(1)))
    watched = process(account, account.upload(KEY, good_orders(1)), chain=Chain(flow_run_id="f-1"))
    assert (unwatched.observed, watched.observed) == (False, True)


def test_an_unforeseen_error_names_its_place_and_never_its_text(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ValueError("could not convert 'card 4111 1111 1111 1111'")

    monkeypatch.setattr(flows.pipeline.stages, "judge_file", stumble)
    upload = account.upload(KEY, good_orders(1))
    with pytest.raises(StageBroke, match=r"stage validate: ValueError at test_stages\.py:\d+ stumble") as caught:
        process(account, upload)
    assert "4111" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert account.pipeline.store.receipt(upload.run_id) is None


def test_rows_that_are_not_accounted_for_are_never_committed(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = account.upload(KEY, good_orders(3))
    with UploadRun(account.pipeline, upload) as run:
        run.fetch()
        validated = run.validate()
        run.refine()
        run._validated = replace(validated, rows_in=4)
        with pytest.raises(StageBroke, match="nothing was committed"):
            run.record()
    assert account.pipeline.store.receipt(upload.run_id) is None


def test_nothing_is_left_on_the_disk(account: Account, tmp_path: Path) -> None:
    upload = account.upload(KEY, good_orders(1))
    with UploadRun(account.pipeline, upload) as run:
        assert len(list(tmp_path.glob("sluice-*"))) == 1
        run.run()
    assert list(tmp_path.glob("sluice-*")) == []


def test_a_rejection_is_named_by_its_code_or_else_by_its_class() -> None:
    class HeaderMissing(FileRejected):
        code = "header_missing"

    class SomethingElse(FileRejected):
        code = ""

    assert code_of(HeaderMissing("x")) == "header_missing"
    assert code_of(SomethingElse("x")) == "something_else"


@pytest.fixture
def scaled(account: Account, tmp_path: Path) -> Account:
    """The account, with a contract that scales a column."""
    folder = tmp_path / "contracts"
    (folder / "default").mkdir(parents=True)
    (folder / "scaled").mkdir()
    (folder / "default" / "contract.yaml").write_text("dataset: default\n")
    (folder / "scaled" / "contract.yaml").write_text("dataset: scaled\npreprocess:\n  - standardize: {columns: [x]}\n")
    settings = account.pipeline.settings.model_copy(update={"contracts_folder": folder})
    return Account(assemble(settings))


def test_what_a_step_learned_lies_beside_the_rows_and_goes_with_them(scaled: Account) -> None:
    first = process(scaled, scaled.upload("incoming/scaled/x.csv", b"x\n1\n3\n", sequencer="0001"))
    (fitted,) = [output for output in first.outputs if output.kind == "fitted"]
    assert fitted.key.startswith("data/scaled/_fitted/")
    body = boto3.client("s3").get_object(Bucket="published", Key=fitted.key)["Body"].read()
    assert json.loads(body) == first.fitted
    second = process(scaled, scaled.upload("incoming/scaled/x.csv", b"x\n2\n8\n", sequencer="0002"))
    assert sorted(scaled.keys("data/")) == sorted(output.key for output in second.outputs)


# --- memory -----------------------------------------------------------------------------------------------------------

STEPS = """
import numpy as np

def greedy(frame):
    return frame.assign(y=np.ones(10**15))  # 8 PB: a real MemoryError
"""


def test_a_step_that_finds_no_memory_rejects_nothing_and_the_upload_can_be_tried_again(scaled: Account) -> None:
    folder = scaled.pipeline.settings.contracts_root / "scaled"
    (folder / "contract.yaml").write_text("dataset: scaled\npreprocess: [steps.greedy]\n")
    (folder / "steps.py").write_text(STEPS)
    upload = scaled.upload("incoming/scaled/x.csv", b"x\n1\n3\n")
    with pytest.raises(OutOfMemory, match=r"stage refine ran out of memory .*steps\.py.*TaskMemory"):
        process(scaled, upload)
    assert scaled.pipeline.store.receipt(upload.run_id) is None
    (folder / "steps.py").write_text(STEPS.replace("10**15", "len(frame)"))
    assert process(scaled, upload).status is Status.PUBLISHED


def test_great_expectations_without_memory_is_no_verdict_on_the_file(
    scaled: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scaled.pipeline.settings.contracts_root / "scaled"
    expectation = "expect_column_values_to_be_between: {column: x, min_value: 1}"
    (folder / "contract.yaml").write_text(f"dataset: scaled\nexpectations:\n  - {expectation}\n")
    engine = gx().PandasExecutionEngine
    monkeypatch.setattr(engine, "get_domain_records", lambda *_, **__: np.ones(10**15))
    upload = scaled.upload("incoming/scaled/x.csv", b"x\n1\n3\n")
    with pytest.raises(OutOfMemory, match="stage validate"):
        process(scaled, upload)
    assert scaled.pipeline.store.receipt(upload.run_id) is None


def test_an_upload_whose_contract_was_removed_since_is_done_all_the_same(account: Account) -> None:
    """It is delivered again under a release without the contract: the receipt exists, so it can be deleted."""
    upload = account.upload(KEY, good_orders(2))
    first = process(account, upload)
    contracts = account.pipeline.contracts
    contracts._by_name.pop("orders")
    contracts._globs = Contracts(contracts)._globs
    assert process(account, upload) == first
    assert account.keys("data/") == [first.outputs[0].key]
