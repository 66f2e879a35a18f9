"""Adds the SQS calls StartMessageMoveTask and ListMessageMoveTasks, which redrive a dead-letter queue, to MiniStack.

As on AWS, a redriven message gets a new ID and a receive count of 0. A message that was sent directly to the
dead-letter queue has no source queue, so it can be moved only to a destination that the call names. Unlike on AWS, all
messages are moved before the call returns.
docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
"""

import time
import uuid
from typing import Any

from ministack.services import sqs

_tasks: list[dict[str, Any]] = []


def install() -> None:
    sqs._HANDLERS["StartMessageMoveTask"] = _start
    sqs._HANDLERS["ListMessageMoveTasks"] = _list


def _start(data: dict[str, Any], _queue_url: str) -> dict[str, Any]:
    source_arn, wanted = str(data.get("SourceArn", "")), data.get("DestinationArn")
    source = sqs._queue_by_arn(source_arn)
    if source is None:
        raise sqs._Err("ResourceNotFoundException", "The resource that you specified for SourceArn doesn't exist.", 404)
    if not any(source_arn in queue["attributes"].get("RedrivePolicy", "") for queue in sqs._queues.values()):
        raise sqs._Err("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
    now = time.time()
    with sqs._queues_lock:
        waiting = [message for message in source["messages"] if message["visible_at"] <= now]
        moved = [message for message in waiting if _move(message, wanted)]
        source["messages"] = [message for message in source["messages"] if message not in moved]
    sqs.esm_wake.set()
    failed = {"Status": "FAILED", "FailureReason": "CouldNotDetermineMessageSource"}
    task = {
        "TaskHandle": uuid.uuid4().hex,
        **({"Status": "COMPLETED"} if len(moved) == len(waiting) else failed),
        "SourceArn": source_arn,
        "ApproximateNumberOfMessagesMoved": len(moved),
        "ApproximateNumberOfMessagesToMove": len(waiting),
        "StartedTimestamp": int(now * 1000),
    }
    _tasks.insert(0, task)
    return {"TaskHandle": task["TaskHandle"]}


def _move(message: dict[str, Any], wanted_arn: str | None) -> bool:
    """Move a message to the requested queue or, if `wanted_arn` is None, back to its source queue. Return False if that
    queue does not exist."""
    attributes = dict(message["sys"])
    target = sqs._queue_by_arn(wanted_arn or attributes.pop("DeadLetterQueueSourceArn", ""))
    if target is None:
        return False
    now = time.time()
    fresh = {"id": str(uuid.uuid4()), "sent_at": now, "visible_at": now, "receive_count": 0, "receipt_handle": None}
    target["messages"].append({**message, **fresh, "first_receive_at": None, "sys": attributes})
    return True


def _list(data: dict[str, Any], _queue_url: str) -> dict[str, Any]:
    found = [task for task in _tasks if task["SourceArn"] == data.get("SourceArn")]
    # AWS returns the handle, which can be used to cancel a task, only while the task is still moving messages.
    shown = [{name: value for name, value in task.items() if name != "TaskHandle"} for task in found]
    return {"Results": shown[: int(data.get("MaxResults") or 1)]}
