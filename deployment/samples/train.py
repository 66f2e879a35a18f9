"""An example of a flow that starts when a dataset has new rows, for instance to train a model (see prefect.yaml)."""

from prefect import flow, get_run_logger


@flow(name="train", persist_result=False)
def train(dataset: str, receipt_uri: str = "") -> None:
    """Log that a dataset has new rows. Replace the body with code that trains a model on the dataset's current rows.

    Args:
        dataset: The dataset, such as orders.
        receipt_uri: The S3 URI of the receipt of the file published last. The receipt lists the objects with its rows.
    """
    get_run_logger().info("%s has new rows; the last receipt is %s.", dataset, receipt_uri or "not known")
