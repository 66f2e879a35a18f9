"""Drains the queue by the rules of the real task, and follows the instruction in each message. The AWS emulator runs it
as a process instead of the container's command:

    python draining_task.py FOLDER

A message is JSON: {"do": "done" | "kill" | "return" | "hang" | "work", "name": ..., "seconds": ..., "always": ...}. The
task creates a file in FOLDER/starts when it starts, and the file FOLDER/done/NAME when a message is done. If the file
FOLDER/plan exists, the task removes the first exit code from it, and ends immediately with that code.
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
    instruction = json.loads(message["Body"])
    of_message = {"QueueUrl": os.environ["SLUICE_QUEUE_URL"], "ReceiptHandle": message["ReceiptHandle"]}
    first = message["Attributes"]["ApproximateReceiveCount"] == "1"
    if instruction["do"] == "kill" and (first or instruction.get("always")):
        os._exit(137)
    if instruction["do"] == "hang" and first:
        time.sleep(600)
    if instruction["do"] == "return" and first:
        queue.change_message_visibility(**of_message, VisibilityTimeout=int(instruction["seconds"]))
        return True
    if instruction["do"] == "work":
        queue.change_message_visibility(**of_message, VisibilityTimeout=int(instruction["seconds"]) + 10)
        time.sleep(float(instruction["seconds"]))
    (done / instruction["name"]).write_text(str(time.time()))
    queue.delete_message(**of_message)
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
