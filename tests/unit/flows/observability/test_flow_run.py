"""Prefect shows the work and never delays it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.observability.flow_run import FlowRunner
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Status
from tests.chain.files import good_orders
from tests.unit.flows.conftest import Account

_HEADERS = [{"Retry-After": "600"}, {"Retry-After": "0", "Prefect-Maintenance": "true"}]


@pytest.fixture(params=_HEADERS, ids=["come back in ten minutes", "under maintenance until further notice"])
def busy_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the API address of a server that answers every request with 503 and these headers."""

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            for name, value in {**request.param, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        do_POST = do_GET  # noqa: N815 (the name that the server calls)

        def log_message(self, *_: object) -> None:
            """Do nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def test_a_server_that_asks_for_patience_does_not_hold_data_back(
    account: Account, busy_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.observability.flow_run.PATIENCE_SECONDS", 0.01)
    upload = account.upload("incoming/orders/monday.csv", good_orders(2))
    started = time.monotonic()
    with temporary_settings({PREFECT_API_URL: busy_server, PREFECT_CLIENT_MAX_RETRIES: 1}):
        receipt = FlowRunner(account.parts).process(UploadJob(upload))
    assert (receipt.status, receipt.observed) == (Status.PUBLISHED, False)
    assert time.monotonic() - started < 30
