"""Tokens of the Stripe App: renewal, and kills, outages, full disks and damaged files around it."""

import signal
import subprocess
import threading
import time

import duckdb
import pytest

from orchestration.accounts.oauth_tokens import RENEW_AFTER_SECONDS, NotAuthorized
from orchestration.setup.connections import make_connections
from orchestration.setup.registry import make_integrations
from orchestration.simulator import (
    Fault,
)
from orchestration.stripe_api import RetryPolicy, StripeUnavailable
from tests.integration.stripe_app.conftest import AGAIN, HOUR, TOKEN_PATH, App, wait_until
from tests.support import pipeline

ONE_TRY = RetryPolicy(tries=1, first_tries=1)
PRINT_TOKEN = """
from orchestration.config.settings import Settings
from orchestration.setup.connections import make_connections
print(make_connections(Settings()).app_key("shop")().get_secret_value())
"""


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
    key = make_connections(app.settings).app_key("shop")
    token = key()
    assert token.get_secret_value() == app.tokens()["access_token"]
    for _ in range(3):
        assert key() == token
    assert (app.exchanges(), app.reads()) == (1, 0)


def test_a_fresh_token_is_not_renewed(app: App) -> None:
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS + 60)
    app.server.requests.clear()
    assert make_connections(app.settings).app_key("shop")().get_secret_value() == app.tokens()["access_token"]
    assert app.server.requests.total == 0


def test_a_token_that_expires_during_a_sync_is_renewed(app: App) -> None:
    """Let the token expire while a page is on its way, in two of the lists."""
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
    (shop,) = make_integrations(app.settings).all()
    assert (shop.name, shop.api_key, shop.key_source) == ("shop", None, "secrets/shop/oauth.json")
    assert make_integrations(app.settings).named("shop") == shop
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
    key = make_connections(app.settings).app_key("shop")
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


def kill_during_exchange(app: App, process: subprocess.Popen[str]) -> None:
    """Kill the process once its token exchange has reached Stripe."""
    wait_until(lambda: app.exchanges() > 0)
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
    kill_during_exchange(app, app.process(PRINT_TOKEN))
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
    assert [each.name for each in make_integrations(app.settings).all()] == ["shop"]


def test_a_kill_before_stripe_renewed_the_tokens_loses_nothing(app: App) -> None:
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS)
    before = app.tokens()
    app.server.requests.clear()
    app.server.faults.add(Fault("drop", times=1_000, path=TOKEN_PATH))
    kill_during_exchange(app, app.process(PRINT_TOKEN))
    assert app.tokens() == before
    app.server.faults.clear()
    assert (
        make_connections(app.settings).app_key("shop")().get_secret_value()
        == app.tokens()["access_token"]
        != before["access_token"]
    )


def test_a_full_disk_prevents_a_token_renewal(app: App) -> None:
    """Limit the file size to zero bytes, which fails like a full disk."""
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS)
    before = app.tokens()
    app.server.requests.clear()
    no_room = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    _, result = app.process(no_room + PRINT_TOKEN).communicate(timeout=60)
    assert "OSError" in result
    assert (app.tokens(), app.exchanges()) == (before, 0)
    assert [path.name for path in app.path().parent.iterdir() if path.name.startswith(".")] == []
    assert make_connections(app.settings).app_key("shop")().get_secret_value() != before["access_token"]


def test_an_outage_at_stripe_keeps_the_tokens(app: App) -> None:
    app.connect()
    app.change(issued_at=time.time() - RENEW_AFTER_SECONDS)
    before = app.tokens()
    app.server.faults.add(Fault("server_error", path=TOKEN_PATH, status=503))
    with pytest.raises(StripeUnavailable, match="POST /v1/oauth/token"):
        make_connections(app.settings).app_key("shop", retry=ONE_TRY)()
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
