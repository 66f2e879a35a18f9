"""Import the part of Great Expectations (GX) that checks data, on first use.

GX's public entry points validate one frame in memory, and compute a fingerprint of it first, which takes most of the
time. Sluice uses the layer below them, the metric graph, with one partition at a time. Its classes have
public names, but are in internal modules. So GX's version is pinned, and a test compares Sluice's verdicts with those
of `ValidationDefinition.run`.
"""

import functools
import gc
import importlib
import logging
import os
import sys
from threading import Lock
from types import ModuleType, SimpleNamespace
from typing import Any

# GX needs these modules only for plots and for one expectation. They take half of the time of GX's import, and 80 MB.
_IMPORTED_ON_FIRST_USE = ("altair", "scipy.stats")
_NAMES_BY_MODULE = {
    "expectations.core": (),  # registers the expectations
    "expectations.metrics": (),  # registers the metrics
    "exceptions": ("ExpectationNotFoundError", "MetricResolutionError"),
    "execution_engine": ("PandasExecutionEngine", "pandas_execution_engine"),
    "expectations.expectation_configuration": ("ExpectationConfiguration",),
    "expectations.metrics.column_map_metrics.column_values_between": ("ColumnValuesBetween",),
    "expectations.metrics.map_metric_provider": ("column_condition_partial",),
    "expectations.metrics.metric_provider": ("metric_value",),
    "expectations.metrics.table_metric_provider": ("TableMetricProvider",),
    "expectations.registry": (
        *("get_expectation_impl", "get_metric_kwargs", "get_metric_provider", "register_metric"),
        "list_registered_expectation_implementations",
    ),
    "validator": ("validation_graph",),
    "validator.metric_configuration": ("MetricConfiguration",),
    "validator.metrics_calculator": ("MetricsCalculator",),
}


_IMPORTING = Lock()  # a task imports GX in another thread while it waits for its first upload


def gx() -> Any:
    """Return a namespace with the parts of GX that Sluice uses. The first call imports GX, which takes one to three
    seconds."""
    with _IMPORTING:
        return _imported()


@functools.cache
def _imported() -> Any:
    """Import GX and return the namespace. GX writes nothing, because no data context is created, and sends nothing,
    unless the environment turns its analytics on."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    stand_ins = {name: _OnFirstUse(name) for name in _IMPORTED_ON_FIRST_USE if name not in sys.modules}
    sys.modules.update(stand_ins)
    collecting = gc.isenabled()
    gc.disable()  # the import creates hundreds of thousands of objects, and none of them is garbage
    try:
        modules = {path: importlib.import_module(f"great_expectations.{path}") for path in _NAMES_BY_MODULE}
        names = SimpleNamespace(
            **{name: getattr(modules[path], name) for path, found in _NAMES_BY_MODULE.items() for name in found}
        )
        gc.freeze()  # later collections skip these objects, which are never deleted, and take 2 ms instead of 150
    finally:
        if collecting:
            gc.enable()
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]  # only GX's own modules keep a reference to it; all others import the real module
    _configure(names)
    return names


def _configure(names: Any) -> None:
    # GX computes fingerprints only for frames that are smaller than this size in bytes.
    names.pandas_execution_engine.HASH_THRESHOLD = 0
    # One expectation (KL divergence) ignores GX's setting for progress bars. The bars would also start a thread.
    bars = names.validation_graph.tqdm
    bars.monitor_interval = 0
    names.validation_graph.tqdm = lambda *given, **options: bars(*given, **{**options, "disable": True})
    # GX's import redirects all of Python's warnings to a logger. This sends them to stderr again.
    logging.captureWarnings(False)
    logging.getLogger("great_expectations").setLevel(logging.ERROR)


class _OnFirstUse(ModuleType):
    """Replaces a module that GX imports but rarely uses, and imports the real module on first use. importlib's
    LazyLoader cannot do this, because before Python 3.12 the import statement itself counts as a use."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self.__name__), attribute)
