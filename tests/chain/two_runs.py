"""Two runs in one process that wait for a slot of the concurrency limit that the argument names.

The flow does not need S3, because the test that runs this module is only about the slot.
"""

from __future__ import annotations

import sys

from prefect import flow

from flows.observability.upload_slot import upload_slot


@flow
def work(limit: str, wait_seconds: float) -> None:
    """Take a slot, and print "worked"."""
    with upload_slot(limit, wait_seconds=wait_seconds):
        print("worked")


if __name__ == "__main__":
    work(sys.argv[1], 1)
    work(sys.argv[1], 3_600)  # this process has waited in vain once
