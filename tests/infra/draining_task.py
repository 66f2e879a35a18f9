"""Drains the queue by the rules of the real task, and follows the instruction in each message. The AWS emulator runs it
as a process instead of the container's command:

    python draining_task.py FOLDER

A message is JSON: {"do": "done" | "kill" | "return" | "hang" | "work", "name": ..., "seconds": ...}. The task creates a
file in FOLDER/starts when it starts, and one in FOLDER/done for each message that is done. If the file FOLDER/plan
exists, the task takes the first exit code from it and ends at once, before it receives a message.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import boto3

POLL_SECONDS = 2


def main(folder: Path) -> int:
    stay_until = float(os.environ.get("SLUICE_STAY_UNTIL", "0"))
    start = {"at": time.time(), "stay_until": stay_until, "execution": os.environ["SLUICE_EXECUTION_ARN"]}
    (folder / "starts" / str(os.getpid())).write_text(json.dumps(start))
    _follow_plan(folder / "plan")
    gave_back = False
    queue = boto3.client("sqs")
    while True:
        began = time.time()
        message = _receive(queue)
        if message is None:
            if began > stay_until:
                return 75 if gave_back else 0
        else:
            gave_back |= _handle(queue, message, folder / "done")


def _follow_plan(plan: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        first, *others = plan.read_text().split()
        plan.write_text(" ".join(others)) if others else plan.unlink()
        os._exit(int(first))


def _receive(queue: Any) -> dict[str, Any] | None:
    received = queue.receive_message(
        QueueUrl=os.environ["SLUICE_QUEUE_URL"],
        WaitTimeSeconds=POLL_SECONDS,
        VisibilityTimeout=int(os.environ["SLUICE_VISIBILITY_TIMEOUT_SECONDS"]),
        MessageSystemAttributeNames=["ApproximateReceiveCount"],
    )
    return next(iter(received.get("Messages", [])), None)


def _handle(queue: Any, message: dict[str, Any], done: Path) -> bool:
    """Follow the instruction in a message, and return whether the message was returned to the queue."""
    told = json.loads(message["Body"])
    of_message = {"QueueUrl": os.environ["SLUICE_QUEUE_URL"], "ReceiptHandle": message["ReceiptHandle"]}
    first = message["Attributes"]["ApproximateReceiveCount"] == "1"
    if told["do"] == "kill" and (first or told.get("always")):
        os._exit(137)
    if told["do"] == "hang" and first:
        time.sleep(600)
    if told["do"] == "return" and first:
        queue.change_message_visibility(**of_message, VisibilityTimeout=int(told["seconds"]))
        return True
    if told["do"] == "work":
        queue.change_message_visibility(**of_message, VisibilityTimeout=int(told["seconds"]) + 10)
        time.sleep(float(told["seconds"]))
    (done / told["name"]).write_text(str(time.time()))
    queue.delete_message(**of_message)
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
