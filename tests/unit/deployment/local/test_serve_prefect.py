"""The log of the local Prefect server contains no secrets, and only the user who started the server can read it."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deployment.local.serve_prefect import RedactedStream, without_secrets
from deployment.local.services import Service
from deployment.prefect_setup.blocks import notification_block


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


@pytest.fixture
def failing_webhook() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:pass-word@127.0.0.1:{server.server_port}/hooks/tok-en?key=s3cr-et"  # pragma: allowlist secret
        server.shutdown()


def test_a_failing_webhook_leaves_no_secret_in_the_log(failing_webhook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    plain, redacted = io.StringIO(), io.StringIO()
    logger = logging.getLogger("webhook-test")
    logger.handlers = [logging.StreamHandler(plain), logging.StreamHandler(RedactedStream(redacted))]
    try:
        notification_block("notify", failing_webhook).notify("body", "subject")  # type: ignore[attr-defined]
    except Exception:
        logger.exception("Action failed: %s", failing_webhook)
    for secret in ("me:", "pass-word", "tok-en", "s3cr-et"):
        assert secret in plain.getvalue()
        assert secret not in redacted.getvalue()
    assert "http://127.0.0.1:" in redacted.getvalue()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://hooks.slack.com/services/T/B/secret", "https://hooks.slack.com/..."),
        ("https://a:b@h.example:8443?token=x@y.z", "https://h.example:8443/..."),
        ("sendgrid://key:me@x.example/you@y.example", "sendgrid://x.example/..."),  # pragma: allowlist secret
        ("postgresql+asyncpg://u:p@db:5432/prefect", "postgresql+asyncpg://db:5432/..."),
    ],
)
def test_only_the_scheme_and_the_host_of_a_url_remain(address: str, shown: str) -> None:
    assert without_secrets(f"for url '{address}'\n") == f"for url '{shown}'\n"


def test_logs_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    service = Service("nothing", [sys.executable, "-c", ""], dict(os.environ), logs / "nothing.log", tmp_path / "p")
    previous = os.umask(0)
    try:
        service.start()
    finally:
        os.umask(previous)
        service.stop()
    assert (logs.stat().st_mode & 0o777, service.log_path.stat().st_mode & 0o777) == (0o700, 0o600)
