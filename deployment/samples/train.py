"""An example of a flow that starts when a dataset has new rows, such as the training of a model (see prefect.yaml)."""

from prefect import flow, get_run_logger


@flow(name="train", persist_result=False)
def train(dataset: str, receipt_uri: str = "") -> None:
    """Train a model on the current rows of a dataset.

    Args:
        dataset: The dataset, such as orders.
        receipt_uri: The S3 URI of the last published file's receipt, which names the objects with the file's rows.
    """
    get_run_logger().info("%s has new rows; the last receipt is %s.", dataset, receipt_uri or "not known")
