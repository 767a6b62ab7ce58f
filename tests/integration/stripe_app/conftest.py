"""A simulated Stripe, the receiver, and a data folder for the tests of the Stripe App.

They work over real HTTP with the simulated account in Stripe's place. Real processes are killed.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import duckdb
import pytest
import requests
import uvicorn
from pydantic import SecretStr

from orchestration.accounts.oauth_flow import CALLBACK_PATH, authorize_url
from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.setup.connections import make_app_authorization
from orchestration.setup.registry import make_webhook_endpoints
from orchestration.simulator import (
    DEFAULT_WEBHOOK_SECRET,
    AppOptions,
    SimulatedAccount,
    SimulatorServer,
)
from orchestration.web.app import receiver

CLIENT_ID, SECRET_KEY = "ca_of_the_app", "sk_test_of_the_developer_of_the_app"

TOKEN_PATH = "/v1/oauth/token"
ENDPOINT = "/v1/oauth/:id"
HOUR = 3_600
AGAIN = "Authorize it again: recoup connect --app --name shop"


@dataclass
class App:
    """The operator of the app: a simulated Stripe, the receiver, and a data folder."""

    server: SimulatorServer
    settings: Settings

    def visit(self, name: str = "shop", description: str | None = None) -> requests.Response:
        """Open the link, agree (or not) at Stripe, and return the callback page."""
        return requests.get(authorize_url(make_app_authorization(self.settings), name, description), timeout=20)

    def connect(self, name: str = "shop") -> None:
        page = self.visit(name)
        assert page.status_code == 200, page.text

    def path(self, name: str = "shop") -> Path:
        return self.settings.secrets_dir / name / "oauth.json"

    def tokens(self, name: str = "shop") -> dict[str, Any]:
        stored: dict[str, Any] = json.loads(self.path(name).read_text())
        return stored

    def change(self, name: str = "shop", **changes: Any) -> None:
        self.path(name).write_text(json.dumps(self.tokens(name) | changes))

    def exchanges(self) -> int:
        return self.server.requests.by_endpoint[ENDPOINT]

    def webhook_url(self) -> str:
        endpoints = make_webhook_endpoints(self.settings)
        return endpoints.url(endpoints.files().enable())

    def reads(self) -> int:
        return self.server.requests.total - self.exchanges()

    def process(self, script: str, **options: Any) -> subprocess.Popen[str]:
        variables = {
            "PYTHONPATH": str(PROJECT_ROOT),
            "STRIPE_API_BASE": self.settings.stripe_api_base,
            "STRIPE_APP_CLIENT_ID": CLIENT_ID,
            "STRIPE_APP_SECRET_KEY": SECRET_KEY,
            "RECOUP_WEBHOOK_BASE_URL": self.settings.recoup_webhook_base_url,
            "RECOUP_DATA_DIR": str(self.settings.recoup_data_dir),
        }
        return subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )


@contextmanager
def serving(listening: socket.socket, settings: Settings) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(receiver(settings), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """Yield the app. The simulated account is signed in at Stripe; a second account exists."""
    account, other = SimulatedAccount(seed=81, payments=60, days=40), SimulatedAccount(seed=82, payments=60, days=40)
    with SimulatorServer(account, connected=[other]) as server, socket.create_server(("127.0.0.1", 0)) as listening:
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        settings = Settings(
            stripe_api_base=server.url,
            stripe_app_client_id=CLIENT_ID,
            stripe_app_secret_key=SecretStr(SECRET_KEY),
            stripe_webhook_secret=SecretStr(DEFAULT_WEBHOOK_SECRET),
            recoup_webhook_base_url=base_url,
            recoup_data_dir=tmp_path / "data",
        )
        server.app.options = AppOptions(CLIENT_ID, SECRET_KEY, [base_url + CALLBACK_PATH])
        with serving(listening, settings):
            yield App(server, settings)


def other_account(app: App) -> SimulatedAccount:
    return app.server.connections.all_accounts[1]


def by_account(settings: Settings) -> dict[str, int]:
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        rows = connection.execute("SELECT account_id, count(*) FROM raw_stripe.payment_intents GROUP BY 1").fetchall()
    return dict(rows)


def wait_until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "The condition was not met in time."
        time.sleep(0.01)


def callback(app: App, **query: str) -> requests.Response:
    return requests.get(app.settings.recoup_webhook_base_url + CALLBACK_PATH, params=query, timeout=20)


def sent_back(app: App, name: str = "shop") -> dict[str, str]:
    """Return the query with which Stripe sends the browser back, without delivering it."""
    answer = requests.get(authorize_url(make_app_authorization(app.settings), name), allow_redirects=False, timeout=20)
    return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
