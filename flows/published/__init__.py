"""Functions that read a dataset's published rows in a notebook or a script; docs/reading.md explains them.

from flows.published import read_frame

orders = read_frame("orders")
"""

from __future__ import annotations

import contextvars
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa

from blocks.object_store import ObjectStore
from blocks.prefect_names import PRODUCT
from blocks.settings import SettingsMissing
from flows.published.rows import Selection, published_rows

if TYPE_CHECKING:
    from prefect_aws import AwsCredentials

_T = TypeVar("_T")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FRAME_TYPES = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


class IncompleteRead(UserWarning):
    """An index entry, a receipt or an output could not be read, so its rows are missing from the result."""


def read_table(
    dataset: str,
    *,
    stack: str = PRODUCT,
    bucket: str | None = None,
    client: Any = None,
    run: str | None = None,
    quarantine: bool = False,
    with_source: bool = False,
    limit: int | None = None,
) -> pa.Table:
    """Return the current rows of a dataset as an Arrow table.

    Args:
        stack: the stack's name. Its blocks on the Prefect server at PREFECT_API_URL name the bucket.
        bucket: the name of the published bucket; if given, Prefect is not needed.
        client: a boto3 client for S3; by default, a client with the keys in the stack's AWS Credentials block or, if
            it has none, with your default credentials.
        run: a run ID, or its first 8 or more characters, to return only the rows of this run.
        quarantine: return the rows in quarantine instead of the published rows.
        with_source: add the columns `_sluice_run_id` and `_sluice_source_key`.
        limit: the maximum number of rows to return; None returns all.

    Raises:
        NothingProcessed: no file of the dataset has been processed.
        RunUnknown: there is no such run, or several run IDs begin with these characters.
        RunNotCurrent: the run has no rows to read.
        ReceiptUnreadable: this release cannot read the run's receipt.
        ColumnsDiffer: a column's types in different runs cannot be combined, or a name is taken by a source column.
        SettingsMissing: no bucket is given, and PREFECT_API_URL is not set or the server has no blocks of the stack.

    Warns:
        IncompleteRead: something could not be read; the warning names it.
    """
    if bucket is None:
        store = _outside_of_event_loops(lambda: _store_of_stack(stack, client))
    else:
        store = ObjectStore("", bucket, client=client)
    selection = Selection(run=run, quarantine=quarantine, with_source=with_source, limit=limit)
    with published_rows(store, dataset, selection) as rows:
        table = rows.table()
    for address, reason in rows.unreadable.items():
        warnings.warn(f"{address}: {reason}; its rows are missing", IncompleteRead, stacklevel=2)
    return table


def read_frame(dataset: str, **options: Any) -> pd.DataFrame:
    """Return the current rows of a dataset as a DataFrame. The arguments and errors are those of `read_table`.

    64-bit integers have the pandas dtype Int64 and booleans the dtype boolean, which allow missing values. Dates become
    datetime64.
    """
    frame: pd.DataFrame = read_table(dataset, **options).to_pandas(types_mapper=_FRAME_TYPES.get, date_as_object=False)
    return frame


def _store_of_stack(stack: str, client: Any) -> ObjectStore:
    from prefect.settings import PREFECT_API_URL  # importing Prefect takes seconds

    from blocks.settings_block import credentials_of_stack, settings_of_stack

    if not PREFECT_API_URL.value():  # Prefect would start a temporary server, which has no blocks
        raise SettingsMissing(
            "PREFECT_API_URL is not set; set it to the API URL of your Prefect server before the import (`make up`"
            " starts one at http://127.0.0.1:4200/api), or pass the name of the published bucket as bucket=..."
        )
    settings = settings_of_stack(stack)
    return ObjectStore("", settings.published_bucket, client=client or _client_with(credentials_of_stack(stack)))


def _client_with(block: AwsCredentials | None) -> Any:
    """Return an S3 client for a stack's AWS Credentials block, or None without a block. If the block has no keys, use
    the caller's keys or, for the local cloud, those of its root user."""
    import boto3
    from botocore.config import Config

    if block is None:
        return None
    endpoint = block.aws_client_parameters.endpoint_url
    if block.aws_access_key_id:
        return block.get_boto3_session().client("s3", endpoint_url=endpoint)
    if urlsplit(endpoint or "").hostname not in _LOOPBACK:
        return boto3.Session(region_name=block.region_name).client("s3", endpoint_url=endpoint)
    # The local cloud must not get the caller's keys, which are for AWS. Its root user has the keys test and test.
    session = boto3.Session("test", "test", region_name=block.region_name)
    return session.client("s3", endpoint_url=endpoint, config=Config(proxies={}))


def _outside_of_event_loops(function: Callable[[], _T]) -> _T:
    """Call a function in another thread, because a notebook's main thread runs an event loop, in which Prefect's
    functions would return coroutines."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, function).result()
