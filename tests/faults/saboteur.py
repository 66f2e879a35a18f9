"""Runs the container's entry point with faults injected between it and AWS.

The faults are between boto3 and the network, so no code of Sluice is changed. A fault responds instead of the server,
loses, delays or cuts short the response, or ends the process just before or just after the server executes the call.
When ECS runs this module as a task, it reads the faults from its environment:

    SLUICE_SABOTAGE='[{"on": "s3.PutObject", "where": "receipts/", "do": "kill_after"}]' python -m tests.faults.saboteur
"""

from __future__ import annotations

import io
import json
import os
import runpy
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import boto3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session

from tests.faults.full_disk import small_disk

VARIABLE = "SLUICE_SABOTAGE"
TALLY_VARIABLE = "SLUICE_SABOTAGE_TALLY"
"""The variable with the path of the file that gets a line for each fault, before the fault can end the process."""
DISK_VARIABLE = "SLUICE_SABOTAGE_DISK_BYTES"
"""The variable with the size of the disk that TMPDIR is on; without it, the disk is the machine's."""
_HOLD_POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """A fault between a worker and AWS.

    Attributes:
        on: the call, such as "s3.PutObject".
        where: a string that the call's URL must contain; "" matches every URL.
        do: what happens at the call.
            `kill_before` and `kill_after` kill the process with SIGKILL before or after the server executes the call.
            `terminate_after` sends SIGTERM after the server has executed the call, and then returns the response.
            `drop` closes the connection before the server receives the call.
            `lose_answer` closes the connection after the server has executed the call.
            `refuse` responds with `code` and `status` instead of the server.
            `cut` returns only the first half of the response's body.
            `hold` creates the file `gate`.reached, and waits until the file `gate` exists.
        nth: the number of the first matching call that is affected. Retries by boto3 count as calls.
        times: the number of calls that are affected; 0 means all later calls.
    """

    on: str
    do: Literal["kill_before", "kill_after", "terminate_after", "drop", "lose_answer", "refuse", "cut", "hold"]
    where: str = ""
    nth: int = 1
    times: int = 1
    code: str = ""
    status: int = 0
    gate: str = ""


def as_variable(plan: Iterable[Sabotage]) -> dict[str, str]:
    """Return the environment variable that passes the faults to this module."""
    return {VARIABLE: json.dumps([asdict(each) for each in plan])}


def lay(plan: Iterable[Sabotage], session: Any, met: Callable[[Sabotage], object] = lambda _: None) -> None:
    """Inject the faults into every client that `session` creates from now on. `met` is called before each fault takes
    effect."""
    traps = [_Trap(each) for each in plan]

    def before_send(request: Any, event_name: str, **_: Any) -> Any:
        call = event_name.removeprefix("before-send.").lower()
        for trap in traps:
            if trap.is_sprung_by(call, request.url):
                met(trap.plan)
                return trap.act(request)
        return None

    session.events.register("before-send", before_send)


class _Trap:
    """A fault that is injected into a session, with the number of matching calls so far."""

    def __init__(self, sabotage: Sabotage) -> None:
        self.plan = sabotage
        self._calls = 0
        self._network = URLLib3Session()

    def is_sprung_by(self, call: str, url: str) -> bool:
        plan = self.plan
        if call != plan.on.lower() or plan.where not in url:
            return False
        self._calls += 1
        return self._calls >= plan.nth and (plan.times == 0 or self._calls < plan.nth + plan.times)

    def act(self, request: Any) -> Any:
        return getattr(self, f"_{self.plan.do}")(request)

    def _kill_before(self, _request: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _kill_after(self, request: Any) -> None:
        self._network.send(request)
        os.kill(os.getpid(), signal.SIGKILL)

    def _terminate_after(self, request: Any) -> Any:
        answer = self._network.send(request)
        os.kill(os.getpid(), signal.SIGTERM)
        return answer

    def _drop(self, request: Any) -> None:
        raise ConnectionClosedError(endpoint_url=request.url)

    def _lose_answer(self, request: Any) -> None:
        self._network.send(request)
        raise ConnectionClosedError(endpoint_url=request.url)

    def _refuse(self, request: Any) -> AWSResponse:
        plan = self.plan
        body = f"<Error><Code>{plan.code}</Code><Message>injected</Message></Error>"
        if not plan.on.startswith("s3."):
            body = json.dumps({"__type": plan.code, "message": "injected"})
        return _answer(request.url, plan.status, {}, b"" if request.method == "HEAD" else body.encode())

    def _cut(self, request: Any) -> AWSResponse:
        answer = self._network.send(request)
        whole = answer.raw.read()
        return _answer(answer.url, answer.status_code, dict(answer.headers), whole[: len(whole) // 2])

    def _hold(self, _request: Any) -> None:
        gate = Path(self.plan.gate)
        gate.with_suffix(".reached").touch()
        while not gate.exists():
            time.sleep(_HOLD_POLL_SECONDS)


def _answer(url: str, status: int, headers: dict[str, str], body: bytes) -> AWSResponse:
    fields = HTTPHeaders()
    for name, value in headers.items():
        fields[name] = value
    return AWSResponse(url, status, fields, _Raw(body))


class _Raw(io.BytesIO):
    """A response body with urllib3's interface."""

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self.read()


def lay_own_plan() -> None:
    """Inject the faults that this process's environment describes into all clients of boto3's default session."""
    lay((Sabotage(**each) for each in json.loads(os.environ.get(VARIABLE, "[]"))), _default_session(), _tally())


def _tally() -> Callable[[Sabotage], object]:
    path = os.environ.get(TALLY_VARIABLE)
    if not path:
        return lambda _: None
    lines = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    return lambda sabotage: os.write(lines, f"{sabotage.do} {sabotage.on} {sabotage.where}\n".encode())


def drain_queue() -> None:
    """Inject the faults, and run the container's command, as `python -m flows.drain_queue` does."""
    if disk_bytes := os.environ.get(DISK_VARIABLE):
        small_disk(Path(os.environ["TMPDIR"]), int(disk_bytes))
    lay_own_plan()
    runpy.run_module("flows.drain_queue", run_name="__main__", alter_sys=True)


def _default_session() -> Any:
    boto3.setup_default_session()
    return boto3.DEFAULT_SESSION


if __name__ == "__main__":
    drain_queue()
