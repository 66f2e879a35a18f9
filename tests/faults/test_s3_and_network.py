"""Tests of faults of S3 and of the network: S3 rejects or throttles calls, responses are lost, or the object differs
from the event."""

from __future__ import annotations

from typing import Literal

import pytest

from flows.pipeline.receipt import Status, receipt_key
from tests.chain.files import good_orders
from tests.faults.bench import Bench, Case, Worker
from tests.faults.catalogue import fault
from tests.faults.saboteur import Sabotage

pytestmark = pytest.mark.cloud
_AREA: Literal["S3 and network"] = "S3 and network"
_ONE_TRY = {"SLUICE_RETRY_DELAY_SECONDS": "5"}  # longer than a worker waits for messages in an empty queue


# --- temporary faults -------------------------------------------------------------------------------------------


def _slow_down(on: str, where: str, *, times: int) -> Sabotage:
    return Sabotage(on=on, where=where, do="refuse", times=times, code="SlowDown", status=503)


_PASSING = {
    "slow down": [_slow_down("s3.GetObject", "/incoming/", times=2)],
    "cut": [Sabotage(on="s3.GetObject", where="/incoming/", do="cut")],
    "conflict": [
        Sabotage(on="s3.PutObject", where="/receipts/", do="refuse", code="ConditionalRequestConflict", status=409)
    ],
    "lost": [Sabotage(on="s3.PutObject", where="/receipts/", do="lose_answer")],
    "aborted": [Sabotage(on="s3.PutObject", where="/data/", do="drop", times=2)],
    "expired": [Sabotage(on="s3.PutObject", where="/data/", do="refuse", code="ExpiredToken", status=400)],
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            "slow down",
            marks=fault(_AREA, "503 SlowDown several times", expected="retried, published"),
        ),
        pytest.param("cut", marks=fault(_AREA, "body cut short", expected="read again, no row is missing")),
        pytest.param(
            "conflict", marks=fault(_AREA, "409 on a conditional write", expected="written again, one receipt")
        ),
        pytest.param(
            "lost",
            marks=fault(
                _AREA, "receipt written, response lost", expected="a 412 on the worker's write is success; one receipt"
            ),
        ),
        pytest.param(
            "aborted", marks=fault(_AREA, "upload of the output aborted", expected="uploaded again, published once")
        ),
        pytest.param(
            "expired", marks=fault(_AREA, "credentials expire during the work", expected="retried, published")
        ),
    ],
)
def test_a_call_that_fails_temporarily_is_retried_and_the_upload_is_published_on_its_first_delivery(
    bench: Bench, what: str
) -> None:
    case = bench.case()
    assert case.work(*_PASSING[what]).exit_code == 0
    assert case.kept_promises().chain.receive_count == 1


# --- permanent faults: start ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused_for_long(bench: Bench) -> dict[str, tuple[Case, Worker]]:
    """Start workers that retry for a long time, and let them run while other tests run."""
    plans = {
        "slow down": _slow_down("s3.PutObject", "/data/", times=0),
        "cut": Sabotage(on="s3.GetObject", where="/incoming/", do="cut", times=0),
    }
    cases = {what: bench.case() for what in plans}
    return {what: (case, case.start(plans[what], environment=_ONE_TRY)) for what, case in cases.items()}


# --- the object differs from the event ---------------------------------------------------------------------------


@fault(_AREA, "object deleted before it is read", expected="rejected as object_gone; the message is deleted")
def test_a_deleted_object_is_rejected_with_its_reason(
    bench: Bench, refused_for_long: dict[str, tuple[Case, Worker]]
) -> None:
    case = bench.case()
    upload = case.upload
    bench.chain.s3.delete_object(Bucket=upload.bucket, Key=upload.key, VersionId=upload.version_id)
    assert case.work().exit_code == 0
    receipt = case.kept_promises(Status.REJECTED)
    assert [reason.code for reason in receipt.reasons] == ["object_gone"]


@fault(
    _AREA,
    "overwritten between event and read",
    expected="each run reads the version of its event; readers see only the output of the newer version",
)
def test_an_overwritten_object_is_read_in_the_version_of_its_event(bench: Bench) -> None:
    first = bench.case(name="incoming/orders/overwritten.csv", body=good_orders(3))
    second = bench.case(name="incoming/orders/overwritten.csv", body=good_orders(4))
    workers = [case.start() for case in (first, second)]
    assert [worker.ended().exit_code for worker in workers] == [0, 0]
    assert second.kept_promises(rows=4).rows.published == 4
    assert first.kept_promises(rows=3).rows.published == 3


@fault(
    _AREA,
    "412 with another digest",
    expected="the receipt that was committed first remains, with its data; ReceiptConflict in the log",
)
def test_another_result_that_was_committed_first_is_kept(bench: Bench) -> None:
    case = bench.case()
    hold, gate = case.gate("s3.PutObject", "/data/")
    slow = case.start(hold)
    case.held_at(gate)
    case.send()
    # A worker of another release, with other contracts, processes the same upload.
    assert case.work(environment=_other_contracts(case)).exit_code == 0
    first = case.receipt()
    gate.touch()
    outcome = slow.ended()
    assert outcome.exit_code == 0
    assert "ReceiptConflict" in outcome.errors or outcome.logged("receipt conflict")
    assert case.kept_promises() == first


def _other_contracts(case: Case) -> dict[str, str]:
    folder = case.copy_contracts()
    contract = folder / "orders" / "contract.yaml"
    contract.write_text(contract.read_text().replace("value: 0}", "value: 0.1}"))
    return {"SLUICE_CONTRACTS_FOLDER": str(folder)}


# --- permanent faults: end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            "slow down",
            marks=[
                pytest.mark.slow,  # boto3 backs off for half a minute
                fault(
                    _AREA, "503 SlowDown permanently", expected="message returned with AwsUnavailable, published later"
                ),
            ],
        ),
        pytest.param(
            "cut",
            marks=fault(
                _AREA, "body cut short permanently", expected="message returned with AwsUnavailable, published later"
            ),
        ),
    ],
)
def test_a_permanent_fault_returns_the_message_and_the_upload_is_published_later(
    bench: Bench, refused_for_long: dict[str, tuple[Case, Worker]], what: str
) -> None:
    case, worker = refused_for_long[what]
    outcome = worker.ended(120)
    assert outcome.exit_code == 75
    assert "AwsUnavailable" in outcome.errors
    assert case.stranded()
    case.wait_until_visible()
    assert case.work().exit_code == 0
    case.kept_promises()


@pytest.mark.parametrize(
    ("action", "place"),
    [
        pytest.param(
            "s3:GetObject*",
            "LandingBucket",
            marks=fault(
                _AREA,
                "AccessDenied on the upload",
                expected="message returned with AwsRefused, not rejected; published once it is allowed",
            ),
        ),
        pytest.param(
            "s3:PutObject",
            "PublishedBucket",
            marks=fault(
                _AREA,
                "AccessDenied on the receipt",
                expected="message returned with AwsRefused; published once it is allowed",
            ),
        ),
    ],
)
def test_a_missing_permission_does_not_reject_the_file(bench: Bench, action: str, place: str) -> None:
    case = bench.case()
    key = case.upload.key if place == "LandingBucket" else receipt_key(case.upload.run_id)
    with bench.denied(bench.task_role, action, f"arn:aws:s3:::{bench.chain.outputs[place]}/{key}"):
        outcome = case.work(environment=_ONE_TRY)
    assert outcome.exit_code == 75
    assert "AwsRefused" in outcome.errors
    assert case.stranded()
    case.wait_until_visible()
    assert case.work().exit_code == 0
    case.kept_promises()
