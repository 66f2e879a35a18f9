"""Messages between the task and the processes that read files for it.

A malicious file could gain control of the reader process, so its replies are not trusted: only the allowed data types
and error classes are unpickled, and a message with any other class is rejected.
"""

import builtins
import pickle  # `_Receiver` checks every name in a pickle
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from flows.refinery.errors import SluiceError
from flows.refinery.read import rejections

_NAMES = {
    "builtins": {"slice"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "flows.refinery.read.parquet_reader": {"ParquetRows"},
    "flows.refinery.read.partition": {"Misfit", "Partition", "SourceFormat"},
    "flows.refinery.read.reader_messages": {"Range"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "pandas._libs.arrays": {"__pyx_unpickle_NDArrayBacked"},
    "pandas._libs.internals": {"_unpickle_block"},
    "pandas._libs.missing": {"NA"},
    "pandas._libs.tslibs.nattype": {"_nat_unpickle"},
    "pandas._libs.tslibs.timestamps": {"_unpickle_timestamp"},
    "pandas.core.indexes.base": {"_new_Index"},
    "pandas.core.internals.managers": {"BlockManager"},
    "pyarrow.lib": {"_restore_array", "py_buffer", "type_for_alias"},
    "zoneinfo": {"ZoneInfo"},
}


class Range(NamedTuple):
    """A reader's request for a range of bytes, which the task reads from S3."""

    offset: int
    size: int


@cache
def _classes() -> tuple[type, ...]:
    import pandas as pd

    data = (pd.DataFrame, pd.Index, pd.api.extensions.ExtensionArray, pd.api.extensions.ExtensionDtype)
    return (Exception, *data, np.ndarray, np.dtype, np.generic)


class _Sender(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        # By default, a ZoneInfo is pickled with getattr, which gives access to everything.
        return (ZoneInfo, (value.key,)) if isinstance(value, ZoneInfo) else NotImplemented


class _Receiver(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _NAMES.get(module, ()):
            return super().find_class(module, name)
        wanted = super().find_class(module, name) if "." not in name and _may_have_classes(module) else None
        if isinstance(wanted, type) and issubclass(wanted, _classes()):
            return wanted
        raise pickle.UnpicklingError(f"a reader sent {module}.{name}")


def _may_have_classes(module: str) -> bool:
    errors = (builtins.__name__, rejections.__name__, SluiceError.__module__)
    return module in errors or module.partition(".")[0] in ("numpy", "pandas")


def send(stream: Any, message: Any) -> None:
    """Send a message immediately. An unexpected exception is sent as a RuntimeError that only names its type."""
    if isinstance(message, Exception) and not isinstance(message, (SluiceError, OSError)):
        message = RuntimeError(type(message).__name__)
    _Sender(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(message)
    stream.flush()


def receive(stream: Any) -> Any:
    """Return the next message from a reader. Raise EOFError if the reader ended, and pickle.UnpicklingError if it sent
    something that is not allowed."""
    return _Receiver(stream).load()
