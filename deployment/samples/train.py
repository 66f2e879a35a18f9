"""A flow that a published dataset starts: a place for a model's training (the example in prefect.yaml)."""

from prefect import flow, get_run_logger


@flow(name="train", persist_result=False)
def train(dataset: str, receipt_uri: str = "") -> None:
    """Train a model on the current rows of a dataset.

    Args:
        dataset: The dataset, such as orders.
        receipt_uri: The receipt of the file that was published last; it names the objects with the file's rows.
    """
    get_run_logger().info("%s has new rows; the last receipt is %s.", dataset, receipt_uri or "not known")
