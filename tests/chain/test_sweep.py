"""Tests that the scheduled sweep finds a message that no task has processed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chain.chain import Chain
from tests.chain.files import good_orders

pytestmark = pytest.mark.cloud

# The shortest rate of EventBridge Scheduler is one minute.
SWEEP_SECONDS = 150


def test_a_stranded_message_is_picked_up_by_the_scheduled_sweep(chain: Chain) -> None:
    """No drain was started for the message, as if the Lambda had died between its two calls."""
    upload = chain.upload("incoming/orders/stranded.csv", good_orders(3))
    chain.done(upload)
    chain.settle()
    again = replace(upload, attempt=1)
    chain.sqs.send_message(QueueUrl=chain.outputs["QueueUrl"], MessageBody=again.to_json())
    chain.wait_for(lambda: chain.receipt(again).attempt == 1, "the sweep to find the message", SWEEP_SECONDS)
    chain.settle()
