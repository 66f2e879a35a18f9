"""The sweep: a message that nobody works on is found without a person, on the schedule that the template sets."""

from __future__ import annotations

import pytest

from flows.refinery.receipt import Status
from tests.chain.chain import Chain
from tests.chain.files import good_orders

pytestmark = pytest.mark.cloud

# EventBridge Scheduler's shortest rate is a minute.
SWEEP_SECONDS = 150


def test_a_stranded_message_is_picked_up_by_the_scheduled_sweep(chain: Chain) -> None:
    """Its execution was never started, as when the Lambda died between its two calls: only the schedule can help."""
    chain.settle()
    upload = chain.upload("archive/stranded.csv", good_orders(3))
    chain.sqs.send_message(QueueUrl=chain.outputs["QueueUrl"], MessageBody=upload.to_json())
    chain.wait_for(lambda: chain.has_receipt(upload), "the sweep to find the message", SWEEP_SECONDS)
    assert chain.execution(upload) is None
    assert chain.receipt(upload).status is Status.PUBLISHED
    chain.settle()
