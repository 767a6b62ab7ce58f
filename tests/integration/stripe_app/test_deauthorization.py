"""The end of the Stripe App's authorization, and where its secrets are stored."""

import logging
import time

import pytest
import requests

from orchestration.accounts.oauth_tokens import DEAUTHORIZED_EVENT, NotAuthorized
from orchestration.cli.connect import check_each
from orchestration.setup.connections import make_connections
from orchestration.simulator import (
    DEFAULT_WEBHOOK_SECRET,
    AppOptions,
    WebhookEndpoint,
    signature_header,
)
from orchestration.simulator.server.webhooks import deauthorized_event
from tests.integration.stripe_app.conftest import (
    AGAIN,
    CLIENT_ID,
    HOUR,
    SECRET_KEY,
    App,
    callback,
    other_account,
    sent_back,
    wait_until,
)
from tests.support import pipeline


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
    url = app.webhook_url()
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
    wait_until(lambda: app.server.deliverer.counts()[endpoint].delivered == 1)
    assert app.tokens()["disconnected_at"] == app.server.account.now
    assert app.tokens("second")["disconnected_at"] is None
    app.server.requests.clear()
    with pytest.raises(NotAuthorized, match="was disconnected at Stripe"):
        pipeline.extract(app.settings, integration="shop")
    assert app.server.requests.total == 0
    assert pipeline.extract(app.settings, integration="second").account.account_id == other_account(app).id
    assert check_each(make_connections(app.settings), ["shop", "second"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert expected in shown
    assert f"The app works: {other_account(app).id}, test mode" in shown


def test_an_old_deauthorization_event_does_not_end_a_newer_authorization(app: App) -> None:
    """Check a late delivery, which Stripe repeats for up to three days."""
    app.connect()
    account = app.server.account
    account.now += 60
    late = deauthorized_event(account, account, client_id=CLIENT_ID).payload(None)
    app.server.app.deauthorize(account.id)
    account.now += 60
    app.connect()
    url = app.webhook_url()
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
    wait_until(lambda: app.server.deliverer.counts()[endpoint].delivered == 1)
    assert app.tokens()["disconnected_at"] is None


def test_secrets_are_stored_only_in_their_own_file(
    app: App,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = sent_back(app)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "urllib3")  # this test is also the browser, whose addresses contain codes
    caplog.set_level(logging.INFO, "uvicorn.access")
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)  # the simulated Stripe turns it off
    page = callback(app, **back)
    seen = [back["code"], back["state"]]
    for _ in range(2):
        seen += [app.tokens()["access_token"], app.tokens()["refresh_token"]]
        pipeline.extract(app.settings, integration="shop")
        check_each(make_connections(app.settings), ["shop"])
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
