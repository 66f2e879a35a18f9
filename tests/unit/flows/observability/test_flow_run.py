"""Prefect shows uploads as flow runs, but a slow or failing Prefect server never delays them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.observability.flow_run import FlowRunner
from flows.observability.prefect_connection import SHORTEST_PAUSE_SECONDS
from flows.pipeline.job import UploadJob
from flows.pipeline.receipt import Status
from tests.chain.files import good_orders
from tests.unit.flows.conftest import Account

_HEADERS = [{"Retry-After": "600"}, {"Retry-After": "0", "Prefect-Maintenance": "true"}]


class Server:
    """A fake Prefect server that records its requests.

    Attributes:
        status: the HTTP status of every response, except to health checks.
        headers: additional headers of every response.
        health: the HTTP status of responses to health checks.
        requests: the paths of all requests so far.
        url: where the server listens.
    """

    def __init__(self) -> None:
        self.status, self.headers = 503, dict[str, str]()
        self.health = 503
        self.requests: list[str] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Record one request and respond to it."""
        asked_for_health = handler.path.endswith("/ready")
        self.requests.append(handler.path)
        handler.send_response(self.health if asked_for_health else self.status)
        for name, value in {**self.headers, "Content-Length": "0"}.items():
            handler.send_header(name, value)
        handler.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a fake Prefect server, and point Prefect's settings at it."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        do_POST = do_GET  # noqa: N815 (the name that the server calls)

        def log_message(self, *_: object) -> None:
            """Do not log requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{serving.server_port}/api"
        with temporary_settings({PREFECT_API_URL: server.url, PREFECT_CLIENT_MAX_RETRIES: 1}):
            yield server
        serving.shutdown()


@pytest.mark.parametrize(
    "headers", _HEADERS, ids=["come back in ten minutes", "under maintenance until further notice"]
)
def test_a_server_that_asks_clients_to_wait_does_not_delay_uploads(
    account: Account, server: Server, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.observability.prefect_connection.PATIENCE_SECONDS", 0.01)
    server.headers = headers
    upload = account.upload("incoming/orders/monday.csv", good_orders(2))
    receipt = FlowRunner(account.parts).process(UploadJob(upload))
    # If the client waited for as long as the server asks, the test would end with a timeout.
    assert (receipt.status, receipt.observed) == (Status.PUBLISHED, False)


@pytest.mark.heavy
def test_a_server_that_was_down_is_asked_again_after_a_pause(
    account: Account, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.observability.prefect_connection.PATIENCE_SECONDS", 0.01)
    server.headers, now = {"Retry-After": "0"}, 1000.0  # without this header, Prefect's client waits for seconds
    monkeypatch.setattr("flows.observability.prefect_connection.time", SimpleNamespace(monotonic=lambda: now))
    runner, upload = FlowRunner(account.parts), account.upload("incoming/orders/monday.csv", good_orders(2))

    def asked() -> list[str]:
        server.requests.clear()
        assert runner.process(UploadJob(upload)).status is Status.PUBLISHED
        return sorted({path.rsplit("/", 1)[-1] for path in server.requests})

    assert asked()
    assert asked() == [], "nothing is asked during the pause"
    now += SHORTEST_PAUSE_SECONDS
    assert asked() == ["ready"], "still down: only a short question"
    now += SHORTEST_PAUSE_SECONDS
    assert asked() == [], "the second pause is longer"
    now += SHORTEST_PAUSE_SECONDS
    server.health = 200
    assert len(asked()) > 1, "it is back"
