"""Tests of faults of the trigger: events arrive twice, in the wrong order or malformed, or the trigger's calls fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal

import boto3
import pytest

from flows.pipeline.receipt import Status
from lambda_trigger.dispatch import Dispatcher
from lambda_trigger.handler import _CALLS, TriggerConfig, handle_event
from lambda_trigger.message import UploadMessage
from tests.chain.chain import Chain
from tests.chain.files import good_orders
from tests.faults.bench import Bench, Case, eventually, kept_promises
from tests.faults.catalogue import fault
from tests.faults.saboteur import Sabotage, lay

pytestmark = pytest.mark.cloud
_AREA: Literal["Trigger"] = "Trigger"


@pytest.fixture(scope="module", autouse=True)
def busy_cluster(chain: Chain) -> Iterator[None]:
    """Start the maximum number of tasks, which do nothing, so that drains launch none and each test drains the queue
    itself."""
    sleep = {"containerOverrides": [{"name": "drain", "command": ["sleep", "900"]}]}
    cluster = chain.outputs["ClusterArn"]
    started = [
        chain.ecs.run_task(cluster=cluster, taskDefinition="sluice-drain", overrides=sleep)["tasks"][0]["taskArn"]
        for _ in range(2)
    ]
    yield
    for task in started:
        chain.ecs.stop_task(cluster=cluster, task=task)
    chain.wait_for(lambda: not chain.tasks(), "the cluster to be free again")


@pytest.fixture
def stack_queue(bench: Bench) -> Case:
    """Return a case that uses the stack's queue."""
    return bench.stack_queue()


def _published(case: Case, *uploads: UploadMessage, rows: int = 2) -> None:
    """Drain the queue, and check that every upload was published and no drain has failed."""
    assert case.work().exit_code == 0
    chain = case.bench.chain
    for upload in uploads:
        assert kept_promises(chain, upload).rows.published == rows
    assert chain.drains("FAILED") == []
    assert chain.queue_is_empty()
    assert chain.messages("DeadLetterQueueUrl") == {"waiting": 0, "held": 0}


# --- events that arrive several times, or in another order ------------------------------------------------------


@fault(_AREA, "the same event twice", expected="one receipt, no message left")
def test_a_duplicate_event_publishes_once(chain: Chain, stack_queue: Case) -> None:
    upload = chain.upload("incoming/orders/twice.csv", good_orders(2))
    answers = [chain.deliver(chain.event_of(upload)) for _ in range(2)]
    assert [answer["error"] for answer in answers] == [None, None]
    _published(stack_queue, upload)


@fault(_AREA, "the same event twenty times, up to ten at the same time", expected="one receipt, no message left")
def test_twenty_simultaneous_deliveries_of_an_event_publish_once(chain: Chain, stack_queue: Case) -> None:
    upload = chain.upload("incoming/orders/twenty.csv", good_orders(2))
    event = chain.event_of(upload)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: chain.deliver(event), range(20)))
    assert [answer["error"] for answer in answers] == [None] * 20
    _published(stack_queue, upload)


@fault(
    _AREA, "events of one key out of order", expected="the newer version's output stays, the older one's is withdrawn"
)
def test_events_out_of_order_leave_the_newest_version(chain: Chain, stack_queue: Case) -> None:
    older = chain.upload("incoming/orders/order.csv", good_orders(1))
    newer = chain.upload("incoming/orders/order.csv", good_orders(2))
    for upload, sequencer in ((newer, "0B"), (older, "0A")):
        assert chain.deliver(chain.event_of(upload, sequencer=sequencer))["error"] is None
        assert stack_queue.work().exit_code == 0
    data = [key for key in chain.keys("data/orders/") if newer.run_id in key or older.run_id in key]
    assert data == [output.key for output in kept_promises(chain, newer).outputs]
    assert kept_promises(chain, older).status is Status.PUBLISHED


def _of_one_second(bench: Bench, name: str) -> tuple[Case, Case]:
    """Return two versions of a key that neither LastModified nor the order of their run IDs can distinguish."""
    chain = bench.chain

    def written_at(upload: UploadMessage) -> object:
        version = {"Key": upload.key, "VersionId": str(upload.version_id)}
        return chain.s3.head_object(Bucket=upload.bucket, **version)["LastModified"]

    for number in range(100):
        key = f"incoming/orders/{name}-{number}.csv"
        older, newer = (bench.case(key, good_orders(rows), deliver=False) for rows in (1, 2))
        if written_at(older.upload) == written_at(newer.upload) and older.upload.run_id > newer.upload.run_id:
            return older, newer
    raise AssertionError("no two uploads were written in the same second")


@pytest.mark.parametrize("newer_first", [False, True])
@fault(
    _AREA,
    "two versions of a key in the same second, one started without its event",
    expected="the newer version's output stays; S3's list of versions decides which one that is",
)
def test_of_two_versions_of_one_second_the_newer_one_stays(bench: Bench, newer_first: bool) -> None:
    older, newer = _of_one_second(bench, f"second-{newer_first}")
    for case in (newer, older) if newer_first else (older, newer):
        without_event = replace(case.upload, sequencer=None) if case is newer else case.upload
        case.send(without_event.to_json())
        assert case.work().exit_code == 0
    keys = bench.chain.keys("data/orders/")
    data = [key for key in keys if newer.upload.run_id in key or older.upload.run_id in key]
    assert data == [output.key for output in newer.kept_promises(rows=2).outputs]
    older.kept_promises(rows=1)


@fault(_AREA, "duplicate event after the receipt", expected="its task finds the receipt, which stays as it is")
def test_a_duplicate_event_after_the_receipt_changes_nothing(chain: Chain, stack_queue: Case) -> None:
    upload = chain.upload("incoming/orders/closed.csv", good_orders(2))
    chain.deliver(chain.event_of(upload))
    _published(stack_queue, upload)
    before = chain.receipt(upload)
    assert chain.deliver(chain.event_of(upload))["error"] is None
    _published(stack_queue, upload)
    assert chain.receipt(upload) == before


# --- keys -------------------------------------------------------------------------------------------------------


@fault(_AREA, "keys with space, +, é, %2F, emoji, and of 1,024 bytes", expected="all published under their own key")
def test_every_key_that_s3_allows_is_processed(chain: Chain, stack_queue: Case) -> None:
    prefix = "incoming/orders/"
    # The AWS emulator stores objects as files, whose names have at most 255 bytes, so the longest key has folders.
    longest = "/".join(["x" * 100] * 20)[: 1024 - len(prefix) - 4] + ".csv"
    names = ["a b.csv", "a+b.csv", "é.csv", "a%2Fb.csv", "🐧.csv", longest]
    uploads = [chain.upload(prefix + name, good_orders(2)) for name in names]
    assert chain.deliver(chain.event_of(*uploads))["error"] is None
    _published(stack_queue, *uploads)
    assert [chain.receipt(upload).source.key for upload in uploads] == [prefix + name for name in names]


# --- events that are invalid, or contain no upload --------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        pytest.param(
            {"Event": "s3:TestEvent"}, None, marks=fault(_AREA, "S3's test event", expected="nothing to do, no error")
        ),
        pytest.param({}, "has no list of Records", marks=fault(_AREA, "{} as the event", expected="EventUnreadable")),
        pytest.param(
            "not an object",
            "not a JSON object",
            marks=fault(_AREA, "event that is not a JSON object", expected="EventUnreadable"),
        ),
    ],
)
def test_an_event_without_uploads_starts_nothing(chain: Chain, payload: object, says: str | None) -> None:
    answer = chain.deliver(payload)
    assert bool(answer["error"]) is bool(says)
    assert (says or "") in json.dumps(answer["payload"])
    assert chain.queue_is_empty()


@fault(_AREA, "several records, one bad", expected="the others are queued; RecordsFailed makes Lambda retry")
def test_a_bad_record_does_not_stop_the_others(chain: Chain, stack_queue: Case) -> None:
    uploads = [chain.upload(f"incoming/orders/record-{number}.csv", good_orders(2)) for number in range(2)]
    event = chain.event_of(*uploads)
    event["Records"].insert(1, {"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "x"}}})
    assert "1 of 3 records could not be dispatched" in json.dumps(chain.deliver(event)["payload"])
    _published(stack_queue, *uploads)


@fault(_AREA, "deletion, folder marker, event of another bucket", expected="ignored, no error")
def test_records_that_are_not_uploads_are_ignored(chain: Chain) -> None:
    upload = chain.upload("incoming/orders/folder/", b"")
    records = [chain.event_of(upload)["Records"][0] for _ in range(3)]
    records[0]["eventName"] = "ObjectRemoved:Delete"
    records[1]["s3"]["bucket"]["name"] = chain.outputs["PublishedBucket"]
    assert chain.deliver({"Records": records})["payload"] == {"dispatched": 0, "ignored": 3, "failed": 0}
    assert chain.queue_is_empty()


@fault(_AREA, "zero-byte object", expected="rejected, with the reason that it is empty")
def test_an_empty_object_is_rejected_with_its_reason(chain: Chain, stack_queue: Case) -> None:
    upload = chain.upload("incoming/orders/zero.csv", b"")
    chain.deliver(chain.event_of(upload))
    assert stack_queue.work().exit_code == 0
    assert "empty" in kept_promises(chain, upload, Status.REJECTED).reason


# --- the trigger's own calls ------------------------------------------------------------------------------------


@fault(_AREA, "SQS send rejected", expected="no drain without a message; the retry succeeds")
def test_no_drain_is_started_without_its_message(chain: Chain, bench: Bench, stack_queue: Case) -> None:
    upload, drains = chain.upload("incoming/orders/send-refused.csv", good_orders(2)), len(chain.drains())
    with bench.denied(bench.role_named("TriggerRole"), "sqs:SendMessage"):
        assert "1 of 1 records could not be dispatched" in json.dumps(chain.deliver(chain.event_of(upload))["payload"])
    assert len(chain.drains()) == drains
    assert chain.queue_is_empty()
    assert chain.deliver(chain.event_of(upload))["error"] is None
    _published(stack_queue, upload)


@fault(_AREA, "Lambda out of retries", expected="the failure destination contains the event and the reason")
def test_an_event_that_lambda_gave_up_on_is_kept(chain: Chain, bench: Bench, stack_queue: Case) -> None:
    upload = chain.upload("incoming/orders/given-up.csv", good_orders(2))
    event = chain.event_of(upload)
    failures = chain.outputs["TriggerFailuresQueueUrl"]
    with bench.denied(bench.role_named("TriggerRole"), "sqs:SendMessage", stack_queue.queue_arn):
        chain.lambdas.invoke(
            FunctionName=chain.outputs["TriggerFunctionName"],
            InvocationType="Event",
            Payload=json.dumps(event).encode(),
        )
        assert eventually(lambda: bool(chain.messages("TriggerFailuresQueueUrl")["waiting"]))
    (kept,) = chain.sqs.receive_message(QueueUrl=failures)["Messages"]
    body = json.loads(kept["Body"])
    assert body["requestPayload"] == event
    assert body["requestContext"]["condition"] == "RetriesExhausted"
    assert chain.deliver(body["requestPayload"])["error"] is None  # an operator sends the event again
    chain.sqs.delete_message(QueueUrl=failures, ReceiptHandle=kept["ReceiptHandle"])
    _published(stack_queue, upload)


def _trigger(chain: Chain, bench: Bench, *plan: Sabotage) -> TriggerConfig:
    """Return the trigger as the Lambda creates it, with the Lambda's role and the injected faults."""
    given = bench.credentials_of(bench.role_named("TriggerRole"))
    session = boto3.Session(
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=given["AWS_SESSION_TOKEN"],
        region_name=chain.cloud.region,
    )
    lay(plan, session)

    def client(service: str) -> Any:
        make: Any = session.client
        return make(service, config=_CALLS, endpoint_url=chain.cloud.endpoints.aws_endpoint_url)

    dispatcher = Dispatcher(
        sqs=client("sqs"),
        step_functions=client("stepfunctions"),
        s3=client("s3"),
        queue_url=chain.outputs["QueueUrl"],
        state_machine_arn=chain.outputs["StateMachineArn"],
        published_bucket=chain.outputs["PublishedBucket"],
        window_seconds=int(chain.outputs["WindowSeconds"]),
    )
    return TriggerConfig(chain.outputs["LandingBucket"], "incoming/", dispatcher)


_START = "sfn.StartExecution"


@fault(_AREA, "message sent, start throttled", expected="retried within the invocation; published once")
def test_a_throttled_start_is_retried(chain: Chain, bench: Bench, stack_queue: Case) -> None:
    upload = chain.upload("incoming/orders/throttled.csv", good_orders(2))
    throttled = Sabotage(on=_START, do="refuse", times=2, code="ThrottlingException", status=400)
    counts = handle_event(chain.event_of(upload), _trigger(chain, bench, throttled))
    assert counts == {"dispatched": 1, "ignored": 0, "failed": 0}
    _published(stack_queue, upload)


@fault(
    _AREA,
    "message sent, start rejected every time",
    expected="RecordsFailed; the message is processed anyway, and the event's next attempt succeeds",
)
def test_an_upload_without_a_drain_is_processed_anyway(chain: Chain, bench: Bench, stack_queue: Case) -> None:
    upload = chain.upload("incoming/orders/start-refused.csv", good_orders(2))
    with bench.denied(bench.role_named("TriggerRole"), "states:StartExecution"):
        assert "1 of 1 records could not be dispatched" in json.dumps(chain.deliver(chain.event_of(upload))["payload"])
    assert stack_queue.work().exit_code == 0
    kept_promises(chain, upload)
    assert chain.deliver(chain.event_of(upload))["error"] is None
    _published(stack_queue, upload)


@fault(_AREA, "drain started, response lost", expected="retried within the invocation; published once")
def test_a_start_whose_response_was_lost_is_retried(chain: Chain, bench: Bench, stack_queue: Case) -> None:
    upload = chain.upload("incoming/orders/start-lost.csv", good_orders(2))
    lost = Sabotage(on=_START, do="lose_answer")
    counts = handle_event(chain.event_of(upload), _trigger(chain, bench, lost))
    assert counts["dispatched"] == 1
    _published(stack_queue, upload)
