"""Fixtures: one medium-sized account, over HTTP and in process, and a receiver of webhooks.

Tests that move the account's clock create their own account.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
import requests

from orchestration.simulator import DEFAULT_API_KEY, DeliveryCounts, SimulatedAccount, SimulatorServer

Json = dict[str, Any]


@pytest.fixture(scope="session")
def account() -> SimulatedAccount:
    return SimulatedAccount(seed=7, payments=3_000, days=90)


@pytest.fixture(scope="session")
def server(account: SimulatedAccount) -> Iterator[SimulatorServer]:
    with SimulatorServer(account) as running:
        yield running


@pytest.fixture(scope="session")
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {DEFAULT_API_KEY}"
        yield session


class Posted(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Json:
        event: Json = json.loads(self.body)
        return event

    @property
    def signature(self) -> str:
        return self.headers["Stripe-Signature"]

    def signed(self, scheme: str) -> list[str]:
        return [
            value for name, _, value in (part.partition("=") for part in self.signature.split(",")) if name == scheme
        ]


class Receiver:
    """An HTTP server that records posts in order. `answer` returns the status for each post by its number, from 0."""

    def __init__(self, port: int = 0) -> None:
        self.posted: list[Posted] = []
        self.answer: Callable[[int], int] = lambda number: 200
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook?from=stripe"

    @property
    def ids(self) -> list[str]:
        return [posted.event["id"] for posted in self.posted]

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = receiver.answer(len(receiver.posted))
                receiver.posted.append(Posted(self.path, dict(self.headers), body))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_GET = do_POST  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def settled(server: SimulatorServer, endpoint_id: str) -> DeliveryCounts:
    until(lambda: not server.deliverer.counts()[endpoint_id].pending)
    return server.deliverer.counts()[endpoint_id]
