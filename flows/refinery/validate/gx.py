"""The part of Great Expectations that checks data, imported late and only once.

GX's public entry points validate one frame in memory and fingerprint it first, which takes most of the time. Sluice
uses the layer below them: the metric graph, with one partition at a time. These are public classes in internal modules,
so GX's version is pinned, and a test compares verdicts with those of `ValidationDefinition.run`.
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

# Needed only for plots and one expectation; they take half of the time and 80 MB of GX's import.
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
    """Return a namespace with the parts of GX that Sluice uses. The first call takes one to three seconds."""
    with _IMPORTING:
        return _imported()


@functools.cache
def _imported() -> Any:
    """Import GX. It sends and writes nothing: no data context is created, and analytics are off."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    stand_ins = {name: _OnFirstUse(name) for name in _IMPORTED_ON_FIRST_USE if name not in sys.modules}
    sys.modules.update(stand_ins)
    collecting = gc.isenabled()
    gc.disable()  # hundreds of thousands of objects are made, and none of them is garbage
    try:
        modules = {path: importlib.import_module(f"great_expectations.{path}") for path in _NAMES_BY_MODULE}
        names = SimpleNamespace(
            **{name: getattr(modules[path], name) for path, found in _NAMES_BY_MODULE.items() for name in found}
        )
        gc.freeze()  # they stay forever: a collection after each partition then takes 2 ms instead of 150
    finally:
        if collecting:
            gc.enable()
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]  # only GX's own modules hold it; everyone else imports the real one
    _configure(names)
    return names


def _configure(names: Any) -> None:
    # A frame at or above this size in bytes gets no fingerprint; 0 means none ever does.
    names.pandas_execution_engine.HASH_THRESHOLD = 0
    # One expectation (KL divergence) shows progress bars regardless of GX's setting; they would also start a thread.
    bars = names.validation_graph.tqdm
    bars.monitor_interval = 0
    names.validation_graph.tqdm = lambda *given, **options: bars(*given, **{**options, "disable": True})
    # GX redirects Python's warnings to a logger on import; ours stay on stderr.
    logging.captureWarnings(False)
    logging.getLogger("great_expectations").setLevel(logging.ERROR)


class _OnFirstUse(ModuleType):
    """Replaces a module that GX imports at its top and hardly ever uses, and imports it on first use. importlib's
    LazyLoader is not enough: before Python 3.12, the import statement itself counts as a use."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self.__name__), attribute)
