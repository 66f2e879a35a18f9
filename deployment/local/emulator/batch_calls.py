"""Authorizes SQS's batch calls with the action for a single message, as AWS does. MiniStack requires actions such as
sqs:DeleteMessageBatch, which do not exist in IAM.

docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
"""

from typing import Any

from ministack.core import iam_actions

_BATCHES = ("sqs:ChangeMessageVisibilityBatch", "sqs:DeleteMessageBatch", "sqs:SendMessageBatch")


def install() -> None:
    by_name = iam_actions.extract_iam_action

    def by_message(*request: Any, **more: Any) -> Any:
        action = by_name(*request, **more)
        return action.removesuffix("Batch") if action in _BATCHES else action

    iam_actions.extract_iam_action = by_message
