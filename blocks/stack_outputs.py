"""Which outputs of the stack decide which settings. Without Prefect, whose import makes a folder in the user's home."""

from __future__ import annotations

OUTPUTS = {
    "landing_bucket": "LandingBucket",
    "published_bucket": "PublishedBucket",
    "queue_url": "QueueUrl",
    "incoming_prefix": "IncomingPrefix",
    "state_machine_arn": "StateMachineArn",
}
"""By setting, the output that says so."""
