"""A Stripe App end to end: the link, Stripe's page, the receiver's page, tokens that are renewed, and how it ends.

Over real HTTP, with the simulated account in Stripe's place; where a process has to die, it is a process.
"""

import json
import logging
import os
import signal
import socket
import stat
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

from orchestration import pipeline
from orchestration.accounts.oauth_flow import CALLBACK_PATH, LINK_SECONDS, authorize_url
from orchestration.accounts.oauth_tokens import DEAUTHORIZED_EVENT, RENEW_AFTER_SECONDS, AppKey, NotAuthorized
from orchestration.accounts.registry import IntegrationError, Integrations
from orchestration.accounts.webhook_endpoints import WebhookFiles, webhook_url
from orchestration.cli.connect import check_each
from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.simulator import (
    DEFAULT_API_KEY,
    DEFAULT_WEBHOOK_SECRET,
    AppOptions,
    Fault,
    SimulatedAccount,
    SimulatorServer,
    WebhookEndpoint,
    signature_header,
)
from orchestration.simulator.server.webhooks import deauthorized_event
from orchestration.stripe_api import RetryPolicy, StripeUnavailable
from orchestration.web.app import receiver
from tests.support.processes import RECOUP

CLIENT_ID, SECRET_KEY = "ca_of_the_app", "sk_test_of_the_developer_of_the_app"
TOKEN_PATH = "/v1/oauth/token"
ENDPOINT = "/v1/oauth/:id"
HOUR = 3_600
ONE_TRY = RetryPolicy(tries=1, first_tries=1)
AGAIN = "Authorize it again: recoup connect --app --name shop"


@dataclass
class App:
    """The app's operator: a simulated Stripe, the receiver, and a data folder."""

    server: SimulatorServer
    settings: Settings

    def visit(self, name: str = "shop", description: str | None = None) -> requests.Response:
        """Open the link, agree (or not) at Stripe, and be sent back."""
        return requests.get(authorize_url(self.settings, name, description), timeout=20)

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


PRINT_TOKEN = """
from orchestration.accounts.oauth_tokens import AppKey
from orchestration.config.settings import Settings
print(AppKey(Settings(), "shop")().get_secret_value())
"""


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
    """The account that is signed in is the simulated one; another one is there, too."""
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


def until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_two_accounts_authorize_the_app_and_each_is_read_by_its_own_token(app: App) -> None:
    page = app.visit("shop", "The <b>first</b> shop")
    account = app.server.account
    assert page.status_code == 200
    assert f"Integration shop reads {account.id} in test mode." in page.text
    assert stat.S_IMODE(app.path().stat().st_mode) == 0o600
    stored = app.tokens()
    assert (stored["account_id"], stored["livemode"], stored["authorized_at"]) == (account.id, False, account.now)
    app.server.app.account_id = other_account(app).id
    app.connect("second")
    shop, second = Integrations(app.settings).all()
    assert (shop.name, shop.description, shop.account_id, shop.livemode, shop.is_app) == (
        "shop",
        "The <b>first</b> shop",
        account.id,
        False,
        True,
    )
    for each in (shop, second):
        report = pipeline.extract(app.settings, integration=each.name)
        assert report.account.account_id == each.account_id
    intents = {
        each.id: len([1 for i in each.intents.values() if i.created <= each.now])
        for each in (account, other_account(app))
    }
    assert by_account(app.settings) == intents


def test_the_command_prints_a_link_and_needs_no_key(app: App) -> None:
    variables = {
        "PYTHONPATH": str(PROJECT_ROOT),
        "STRIPE_APP_CLIENT_ID": CLIENT_ID,
        "RECOUP_DATA_DIR": str(app.settings.recoup_data_dir),
        "RECOUP_WEBHOOK_BASE_URL": "https://hooks.example.com",
    }
    command = [*RECOUP, "connect", "--app", "--name", "shop_eu"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    (line,) = (line.strip() for line in done.stdout.splitlines() if "client_id" in line)
    link = urlsplit(line)
    assert f"{link.scheme}://{link.netloc}{link.path}" == "https://marketplace.stripe.com/oauth/v2/authorize"
    query = dict(parse_qsl(link.query))
    assert (query["client_id"], query["redirect_uri"]) == (CLIENT_ID, f"https://hooks.example.com{CALLBACK_PATH}")
    assert len(query["state"]) > 40
    assert "Open this within 10 minutes" in done.stdout
    del variables["STRIPE_APP_CLIENT_ID"]
    failed = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "STRIPE_APP_CLIENT_ID is not set" in failed.stderr


def test_an_app_integration_can_be_listed_and_renamed_and_has_no_key_to_set(app: App) -> None:
    app.connect()
    variables = {"PYTHONPATH": str(PROJECT_ROOT), "RECOUP_DATA_DIR": str(app.settings.recoup_data_dir)}

    def recoup(*arguments: str) -> str:
        done = subprocess.run(
            [*RECOUP, "integrations", *arguments],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return " ".join((done.stdout + done.stderr).split())

    assert f"shop {app.server.account.id} test" in recoup("list")
    refused = recoup("set-key", "shop")
    assert refused == (
        "'shop' has no key: it is read by the Stripe App. To authorize it again: recoup connect --app --name shop"
    )
    recoup("rename", "shop", "store")
    assert "app from secrets/store/oauth.json" in recoup("show", "store")
    assert pipeline.extract(app.settings, integration="store").account.account_id == app.server.account.id
    assert "the app is still installed at Stripe: uninstall it there." in recoup("remove", "store", "--yes")
    assert not app.path("store").exists()


def test_an_unpublished_app_is_authorized_by_its_full_link(app: App) -> None:
    link = f"{app.server.url}/oauth/v2/chnlink_61abc/authorize?client_id={CLIENT_ID}"
    settings = app.settings.model_copy(update={"stripe_app_client_id": link})
    url = authorize_url(settings, "shop")
    assert url.startswith(f"{app.server.url}/oauth/v2/chnlink_61abc/authorize?client_id={CLIENT_ID}&redirect_uri=")
    assert requests.get(url, timeout=20).status_code == 200


def callback(app: App, **query: str) -> requests.Response:
    return requests.get(app.settings.recoup_webhook_base_url + CALLBACK_PATH, params=query, timeout=20)


def sent_back(app: App, name: str = "shop") -> dict[str, str]:
    """What Stripe sends the browser back with, not delivered yet."""
    answer = requests.get(authorize_url(app.settings, name), allow_redirects=False, timeout=20)
    return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))


def test_a_link_works_once(app: App) -> None:
    back = sent_back(app)
    assert callback(app, **back).status_code == 200
    before = app.exchanges()
    again = callback(app, **back)
    assert (again.status_code, app.exchanges()) == (400, before)
    assert "it was already used, or was not created here" in again.text


def test_a_link_expires_after_ten_minutes(app: App) -> None:
    back = sent_back(app)
    (pending,) = app.settings.authorizations_dir.iterdir()
    kept = json.loads(pending.read_text())
    pending.write_text(json.dumps(kept | {"expires_at": kept["expires_at"] - LINK_SECONDS}))
    late = callback(app, **back)
    assert (late.status_code, app.exchanges()) == (400, 0)
    assert "older than 10 minutes" in late.text
    assert "recoup connect --app --name shop" in late.text


def test_the_stored_state_cannot_be_used_as_a_link(app: App) -> None:
    back = sent_back(app)
    (pending,) = app.settings.authorizations_dir.iterdir()
    assert back["state"] not in pending.read_text() + pending.name
    assert stat.S_IMODE(pending.stat().st_mode) == 0o600
    for state in (
        pending.name,
        "",
        "../integrations.toml",
        "x" * 5_000,
        "\udcff".encode(errors="surrogateescape").hex(),
    ):
        refused = callback(app, code=back["code"], state=state)
        assert (refused.status_code, app.exchanges()) == (400, 0)
    assert callback(app, **back).status_code == 200


def test_denied_access_is_reported_and_stores_nothing(app: App) -> None:
    app.server.app.denies = True
    page = app.visit()
    assert page.status_code == 400
    assert "Access was denied at Stripe, so nothing was connected." in page.text
    assert not app.path().exists()
    assert Integrations(app.settings).all() == []


def test_a_used_code_is_refused_with_an_explanation(app: App) -> None:
    code = sent_back(app)["code"]
    form = {"grant_type": "authorization_code", "code": code}
    assert requests.post(app.server.url + TOKEN_PATH, data=form, auth=(SECRET_KEY, ""), timeout=20).status_code == 200
    page = callback(app, code=code, state=sent_back(app)["state"])
    assert page.status_code == 400
    assert "Stripe does not accept the code of this authorization: it was already used" in page.text


def test_an_account_cannot_be_connected_by_the_app_twice(app: App) -> None:
    app.connect("shop")
    page = app.visit("twin")
    assert page.status_code == 400
    assert "Integration &#x27;shop&#x27; (secrets/shop/oauth.json) reads this account already." in page.text
    assert not app.path("twin").exists()
    assert [each.name for each in Integrations(app.settings).all()] == ["shop"]


def test_an_account_with_a_key_is_not_connected_by_the_app(app: App) -> None:
    keyed = app.settings.model_copy(update={"stripe_api_key": SecretStr(DEFAULT_API_KEY)})
    with socket.create_server(("127.0.0.1", 0)) as listening:
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        keyed = keyed.model_copy(update={"recoup_webhook_base_url": base_url})
        app.server.app.options = AppOptions(CLIENT_ID, SECRET_KEY, [base_url + CALLBACK_PATH])
        with serving(listening, keyed):
            page = requests.get(authorize_url(keyed, "shop"), timeout=20)
    assert page.status_code == 400
    assert "Integration &#x27;default&#x27; (STRIPE_API_KEY) reads this account already." in page.text


def test_orphaned_tokens_do_not_block_a_new_connection(app: App) -> None:
    """As after a kill between the two files."""
    app.connect()
    app.settings.integrations_path.unlink()
    app.connect()
    assert [each.name for each in Integrations(app.settings).all()] == ["shop"]
    pipeline.extract(app.settings, integration="shop")


def test_a_name_cannot_be_reused_for_another_account(app: App) -> None:
    app.connect("shop")
    before = app.tokens()
    app.server.app.account_id = other_account(app).id
    page = app.visit("shop")
    assert page.status_code == 400
    assert f"is {before['account_id']} in test mode, but this is {other_account(app).id}" in page.text
    assert app.tokens() == before


def test_a_name_with_a_key_cannot_be_used_for_the_app(app: App) -> None:
    settings = app.settings
    settings.integrations_path.parent.mkdir(parents=True, exist_ok=True)
    settings.integrations_path.write_text('[shop]\naccount_id = "acct_1"\n')
    with pytest.raises(IntegrationError, match="has an API key"):
        authorize_url(settings, "shop")
    with pytest.raises(IntegrationError, match="A name consists of lowercase letters"):
        authorize_url(settings, "Shop EU")


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"stripe_app_secret_key": None}, 502, "STRIPE_APP_SECRET_KEY is not set."),
        ({"stripe_app_secret_key": SecretStr("sk_test_wrong")}, 502, "Stripe does not accept STRIPE_APP_SECRET_KEY."),
    ],
)
def test_a_wrong_key_of_the_app_is_named(
    app: App, changes: dict[str, Any], status: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in changes.items():
        monkeypatch.setattr(app.settings, name, value)
    page = app.visit()
    assert page.status_code == status
    assert sentence in page.text
    assert not app.path().exists()


def test_the_callback_page_is_not_cached_and_loads_nothing(app: App) -> None:
    page = app.visit()
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    back = sent_back(app)
    head = requests.head(app.settings.recoup_webhook_base_url + CALLBACK_PATH, params=back, timeout=20)
    assert head.status_code == 200
    assert callback(app, **back).status_code == 200


def test_an_expired_token_is_renewed(app: App) -> None:
    app.connect()
    first = app.tokens()
    app.server.account.now += HOUR
    report = pipeline.extract(app.settings, integration="shop")
    second = app.tokens()
    assert report.counts["payment_intents"].written > 0
    assert app.exchanges() == 2
    assert not {first["access_token"], first["refresh_token"]} & {second["access_token"], second["refresh_token"]}
    assert second["authorized_at"] == first["authorized_at"]


@pytest.mark.parametrize("age", [RENEW_AFTER_SECONDS, -60])
def test_a_token_is_renewed_before_it_expires_or_if_the_clock_went_back(app: App, age: float) -> None:
    app.connect()
    app.change(issued_at=time.time() - age)
    app.server.requests.clear()
    key = AppKey(app.settings, "shop")
    token = key()
    assert token.get_secret_value() == app.tokens()["access_token"]
    for _ in range(3):
        assert key() == token
    assert (app.exchanges(), app.reads()) == (1, 0)


def test_a_fresh_token_is_not_renewed(app: App) -> None:
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS + 60)
    app.server.requests.clear()
    assert AppKey(app.settings, "shop")().get_secret_value() == app.tokens()["access_token"]
    assert app.server.requests.total == 0


def test_a_token_that_expires_during_a_sync_is_renewed(app: App) -> None:
    """The hour is over while a page is on its way, in two of the lists."""
    app.connect()
    for path in ("/v1/charges", "/v1/refunds"):
        app.server.faults.add(Fault("slow", path=path, clock_seconds=HOUR))
    report = pipeline.extract(app.settings, integration="shop")
    assert report.counts["payment_intents"].written > 0
    assert report.counts["charges"].written > 0
    assert 2 <= app.exchanges() <= 3
    again = pipeline.extract(app.settings, integration="shop")
    assert again.counts.keys() <= report.counts.keys()


def test_renewing_a_token_does_not_change_the_recorded_integration(app: App) -> None:
    app.connect()
    known = set()
    for _ in range(3):
        pipeline.extract(app.settings, integration="shop")
        app.server.account.now += HOUR
        with duckdb.connect(str(app.settings.warehouse_path), read_only=True) as connection:
            known |= set(connection.execute("SELECT * FROM sync.integrations").fetchall())
    ((integration, account_id, _),) = known
    assert (integration, account_id) == ("shop", app.server.account.id)


def test_listing_integrations_sends_no_request(app: App) -> None:
    app.connect()
    app.change(issued_at=0.0)
    app.server.requests.clear()
    (shop,) = Integrations(app.settings).all()
    assert (shop.name, shop.api_key, shop.key_source) == ("shop", None, "secrets/shop/oauth.json")
    assert Integrations(app.settings).named("shop") == shop
    assert app.server.requests.total == 0


def test_processes_that_need_a_new_token_renew_it_once(app: App) -> None:
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS)
    app.server.requests.clear()
    app.server.faults.add(Fault("slow", path=TOKEN_PATH, seconds=1.5))
    running = [app.process(PRINT_TOKEN) for _ in range(3)]
    printed = {process.communicate(timeout=60)[0].strip() for process in running}
    assert printed == {app.tokens()["access_token"]}
    assert app.exchanges() == 1


def test_threads_whose_token_is_refused_renew_it_once(app: App) -> None:
    app.connect()
    key = AppKey(app.settings, "shop")
    refused, found = key(), []
    app.server.requests.clear()
    threads = [threading.Thread(target=lambda: found.append(key(refused))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert refused not in found
    assert app.exchanges() == 1


def killed(app: App, process: subprocess.Popen[str]) -> None:
    """Kill it once its exchange has come to Stripe."""
    until(lambda: app.exchanges() > 0)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL


def test_a_kill_after_stripe_renewed_the_tokens_is_reported_and_repaired_by_one_link(app: App) -> None:
    app.connect()
    pipeline.extract(app.settings, integration="shop")
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS)
    before = app.tokens()
    app.server.requests.clear()
    app.server.faults.add(Fault("slow", path=TOKEN_PATH, seconds=5))
    killed(app, app.process(PRINT_TOKEN))
    assert app.tokens() == before
    with pytest.raises(NotAuthorized) as error:
        pipeline.extract(app.settings, integration="shop")
    assert str(error.value) == (
        "Stripe no longer accepts the tokens of integration 'shop', because they are a year old, the app was "
        f"uninstalled, or a run was killed while it renewed them. {AGAIN}"
    )
    app.connect("shop")
    report = pipeline.extract(app.settings, integration="shop")
    assert not report.relisted_feeds
    assert [each.name for each in Integrations(app.settings).all()] == ["shop"]


def test_a_kill_before_stripe_renewed_the_tokens_loses_nothing(app: App) -> None:
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS)
    before = app.tokens()
    app.server.requests.clear()
    app.server.faults.add(Fault("drop", times=1_000, path=TOKEN_PATH))
    killed(app, app.process(PRINT_TOKEN))
    assert app.tokens() == before
    app.server.faults.clear()
    assert AppKey(app.settings, "shop")().get_secret_value() == app.tokens()["access_token"] != before["access_token"]


def test_a_full_disk_prevents_a_token_renewal(app: App) -> None:
    """A file that may not have a byte fails as one for which there is no room."""
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS)
    before = app.tokens()
    app.server.requests.clear()
    no_room = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    _, result = app.process(no_room + PRINT_TOKEN).communicate(timeout=60)
    assert "OSError" in result
    assert (app.tokens(), app.exchanges()) == (before, 0)
    assert [path.name for path in app.path().parent.iterdir() if path.name.startswith(".")] == []
    assert AppKey(app.settings, "shop")().get_secret_value() != before["access_token"]


def test_an_outage_at_stripe_keeps_the_tokens(app: App) -> None:
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS)
    before = app.tokens()
    app.server.faults.add(Fault("server_error", path=TOKEN_PATH, status=503))
    with pytest.raises(StripeUnavailable, match="POST /v1/oauth/token"):
        AppKey(app.settings, "shop", retry=ONE_TRY)()
    assert app.tokens() == before


@pytest.mark.parametrize("damage", ["", "{", '{"account_id": "acct_1"}'])
def test_a_damaged_token_file_is_reported_and_repaired_by_one_link(app: App, damage: str) -> None:
    app.connect()
    app.path().write_text(damage)
    with pytest.raises(NotAuthorized) as error:
        pipeline.extract(app.settings, integration="shop")
    assert str(error.value) == f"There are no tokens of integration 'shop'. {AGAIN}"
    app.connect()
    pipeline.extract(app.settings, integration="shop")


def disconnected_on(app: App) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(app.server.account.now))
    return f"Integration 'shop' was disconnected at Stripe on {day}. {AGAIN}"


def test_every_sync_after_an_uninstall_says_so(app: App) -> None:
    app.connect()
    app.server.app.deauthorize(app.server.account.id)
    expected = disconnected_on(app)
    for _ in range(2):
        with pytest.raises(NotAuthorized) as error:
            pipeline.extract(app.settings, integration="shop")
        assert str(error.value) == expected
        app.server.requests.clear()
        app.server.account.now += 5 * 86_400
    assert app.server.requests.total == 0
    app.connect("shop")
    assert pipeline.extract(app.settings, integration="shop").counts["payment_intents"].written > 0


def deliver_deauthorizations(app: App) -> str:
    """Register the app's webhook endpoint at Stripe."""
    url = webhook_url(app.settings, WebhookFiles(app.settings).enable())
    return app.server.deliverer.register(WebhookEndpoint(url, enabled_events=(DEAUTHORIZED_EVENT,), connect=True))


def test_a_deauthorization_event_ends_one_integration_and_keeps_the_others(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    app.connect()
    app.server.app.account_id = other_account(app).id
    app.connect("second")
    endpoint = deliver_deauthorizations(app)
    app.server.account.now += 60
    expected = disconnected_on(app)
    app.server.app.deauthorize(app.server.account.id)
    until(lambda: app.server.deliverer.counts()[endpoint].delivered == 1)
    assert app.tokens()["disconnected_at"] == app.server.account.now
    assert app.tokens("second")["disconnected_at"] is None
    app.server.requests.clear()
    with pytest.raises(NotAuthorized, match="was disconnected at Stripe"):
        pipeline.extract(app.settings, integration="shop")
    assert app.server.requests.total == 0
    assert pipeline.extract(app.settings, integration="second").account.account_id == other_account(app).id
    assert check_each(app.settings, ["shop", "second"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert expected in shown
    assert f"The app works: {other_account(app).id}, test mode" in shown


def test_an_old_deauthorization_event_does_not_end_a_newer_authorization(app: App) -> None:
    """Stripe repeats a delivery for up to three days."""
    app.connect()
    account = app.server.account
    account.now += 60
    late = deauthorized_event(account, account, client_id=CLIENT_ID).payload(None)
    app.server.app.deauthorize(account.id)
    account.now += 60
    app.connect()
    url = webhook_url(app.settings, WebhookFiles(app.settings).enable())
    signature = signature_header(late, [DEFAULT_WEBHOOK_SECRET], int(time.time()))
    answer = requests.post(url, data=late, headers={"Stripe-Signature": signature}, timeout=20)
    assert (answer.status_code, answer.json()["stored"]) == (200, 0)
    assert app.tokens()["disconnected_at"] is None
    pipeline.extract(app.settings, integration="shop")


def test_a_deauthorization_of_another_app_is_ignored(app: App) -> None:
    app.connect()
    endpoint = deliver_deauthorizations(app)
    app.server.account.now += 60
    options = app.server.app.options
    assert options is not None
    app.server.app.options = AppOptions("ca_another", SECRET_KEY, options.redirect_uris)
    app.server.app.deauthorize(app.server.account.id)
    until(lambda: app.server.deliverer.counts()[endpoint].delivered == 1)
    assert app.tokens()["disconnected_at"] is None


def test_secrets_are_stored_only_in_their_own_file(
    app: App,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = sent_back(app)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "urllib3")  # this test is the browser, too, whose addresses hold codes
    caplog.set_level(logging.INFO, "uvicorn.access")
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)  # the simulated Stripe has it off
    page = callback(app, **back)
    seen = [back["code"], back["state"]]
    for _ in range(2):
        seen += [app.tokens()["access_token"], app.tokens()["refresh_token"]]
        pipeline.extract(app.settings, integration="shop")
        check_each(app.settings, ["shop"])
        app.server.account.now += HOUR
    last = app.tokens()
    app.server.app.deauthorize(app.server.account.id)
    errors = []
    for _ in range(2):
        with pytest.raises(NotAuthorized) as error:
            pipeline.extract(app.settings, integration="shop")
        errors.append(f"{error.value!r} {error.value.__cause__} {error.value.__context__}")
    seen += [last["access_token"], last["refresh_token"], SECRET_KEY]
    assert "GET /oauth/stripe/callback?…" in caplog.text
    printed = capfd.readouterr()
    texts = [caplog.text, page.text, printed.out, printed.err, *errors, repr(app.settings)]
    files = [path for path in app.settings.recoup_data_dir.rglob("*") if path.is_file() and path != app.path()]
    assert files
    for secret in seen:
        assert not [text for text in texts if secret in text]
        assert not [path for path in files if secret.encode() in path.read_bytes()]
