"""Calls Prefect without the context of the current flow run."""

from collections.abc import Callable
from contextvars import Context, copy_context

from prefect.context import FlowRunContext, SyncClientContext


def outside_of_run(act: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls `act` with the current Prefect settings, but without the flow run and its client.

    Inside a flow run, Prefect makes four requests for each event, to look up what is related to the run. In another
    thread, the run's client may be closed at any time.
    """
    left_out = (FlowRunContext.__var__, SyncClientContext.__var__)
    kept = [(variable, value) for variable, value in copy_context().items() if variable not in left_out]

    def set_and_act() -> None:
        for variable, value in kept:
            variable.set(value)
        act()

    return lambda: Context().run(set_and_act)
