"""What Prefect does by itself: automations from a file, a notification that arrives, a dead run that is called so."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
import yaml

from deployment.automations import declared
from deployment.local.pipeline import settings_of
from tests.chain.chain import Chain

pytestmark = pytest.mark.cloud
_DEAD_AFTER_SECONDS = 10  # the least that Prefect takes; the file itself says 100


class _Receiver(HTTPServer):
    """Keeps the JSON that is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.received: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Post(BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.received.append(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def receiver() -> Iterator[_Receiver]:
    """A webhook receiver on this machine."""
    with _Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def automations(chain: Chain) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.post(f"{chain.cloud.prefect_api_url}/automations/filter", json={}).json()
    return found


def test_a_rejected_file_is_told_to_the_channel_and_applying_again_doubles_nothing(chain: Chain) -> None:
    with receiver() as hook:
        environment = {**settings_of(chain.outputs), "SLUICE_NOTIFY_URL": hook.url}
        chain.cloud.run(["python", "-m", "blocks.register"], timeout_seconds=60, environment=environment)
        for _ in range(2):
            chain.cloud.run(["python", "-m", "deployment.automations"], timeout_seconds=60)
        names = [automation["name"] for automation in automations(chain)]
        assert len(names) == len(set(names))
        assert "Sluice: a file was rejected" in names
        upload = chain.upload("incoming/orders/told.csv", b"")
        chain.ended(upload)
        told = chain.wait_for(lambda: next(iter(hook.received), None), "the notification", 30)
    assert "told.csv" in told["subject"]
    assert "Rejected: empty file" in told["body"]
    assert "0 bytes" in told["body"]


def test_a_run_whose_process_was_killed_is_called_crashed(chain: Chain, tmp_path: Any) -> None:
    """What SIGKILL leaves behind is a run that says Running and a process that says nothing."""
    entry = copy.deepcopy(next(entry for entry in declared() if "sign of life" in entry["name"]))
    entry["name"] = "test: dead"
    entry["trigger"]["within"] = _DEAD_AFTER_SECONDS
    file = tmp_path / "automations.yaml"
    file.write_text(yaml.safe_dump([entry]))
    chain.cloud.run(["python", "-m", "deployment.automations", str(file)], timeout_seconds=60)
    api = chain.cloud.prefect_api_url
    try:
        deployment = httpx.get(f"{api}/deployments/name/process-upload/upload").json()["id"]
        body = {"parameters": {"key": "x"}, "state": {"type": "PENDING", "name": "Received"}, "name": "dead"}
        run = httpx.post(f"{api}/deployments/{deployment}/create_flow_run", json=body).json()["id"]
        httpx.post(f"{api}/flow_runs/{run}/set_state", json={"state": {"type": "RUNNING"}}).raise_for_status()

        def crashed() -> dict[str, Any] | None:
            found: dict[str, Any] = httpx.get(f"{api}/flow_runs/{run}").json()
            return found if found["state"]["type"] == "CRASHED" else None

        state = chain.wait_for(crashed, "the run to be called crashed", 60)["state"]
    finally:
        for automation in automations(chain):
            if automation["name"] == entry["name"]:
                httpx.delete(f"{api}/automations/{automation['id']}")
    assert "No sign of life" in state["message"]
