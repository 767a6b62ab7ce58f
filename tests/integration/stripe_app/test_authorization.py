"""Authorizing the Stripe App: the link, Stripe's page, the callback page, and which accounts may be connected."""

import json
import os
import socket
import stat
import subprocess
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from pydantic import SecretStr

from orchestration.accounts.oauth_flow import CALLBACK_PATH, LINK_SECONDS, authorize_url
from orchestration.accounts.registry import IntegrationError
from orchestration.config.settings import PROJECT_ROOT
from orchestration.setup.connections import make_app_authorization
from orchestration.setup.registry import make_integrations
from orchestration.simulator import (
    DEFAULT_API_KEY,
    AppOptions,
)
from tests.integration.stripe_app.conftest import (
    CLIENT_ID,
    SECRET_KEY,
    TOKEN_PATH,
    App,
    by_account,
    callback,
    other_account,
    sent_back,
    serving,
)
from tests.support import pipeline
from tests.support.processes import RECOUP


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
    shop, second = make_integrations(app.settings).all()
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
    assert "Open this link within 10 minutes" in done.stdout
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
    assert "Uninstall the app at Stripe." in recoup("remove", "store", "--yes")
    assert not app.path("store").exists()


def test_an_unpublished_app_is_authorized_by_its_full_link(app: App) -> None:
    link = f"{app.server.url}/oauth/v2/chnlink_61abc/authorize?client_id={CLIENT_ID}"
    settings = app.settings.model_copy(update={"stripe_app_client_id": link})
    url = authorize_url(make_app_authorization(settings), "shop")
    assert url.startswith(f"{app.server.url}/oauth/v2/chnlink_61abc/authorize?client_id={CLIENT_ID}&redirect_uri=")
    assert requests.get(url, timeout=20).status_code == 200


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
    assert make_integrations(app.settings).all() == []


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
    assert [each.name for each in make_integrations(app.settings).all()] == ["shop"]


def test_an_account_with_a_key_is_not_connected_by_the_app(app: App) -> None:
    keyed = app.settings.model_copy(update={"stripe_api_key": SecretStr(DEFAULT_API_KEY)})
    with socket.create_server(("127.0.0.1", 0)) as listening:
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        keyed = keyed.model_copy(update={"recoup_webhook_base_url": base_url})
        app.server.app.options = AppOptions(CLIENT_ID, SECRET_KEY, [base_url + CALLBACK_PATH])
        with serving(listening, keyed):
            page = requests.get(authorize_url(make_app_authorization(keyed), "shop"), timeout=20)
    assert page.status_code == 400
    assert "Integration &#x27;default&#x27; (STRIPE_API_KEY) reads this account already." in page.text


def test_orphaned_tokens_do_not_block_a_new_connection(app: App) -> None:
    """Check the state after a kill between the writes of the two files."""
    app.connect()
    app.settings.integrations_path.unlink()
    app.connect()
    assert [each.name for each in make_integrations(app.settings).all()] == ["shop"]
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
        authorize_url(make_app_authorization(settings), "shop")
    with pytest.raises(IntegrationError, match="A name consists of lowercase letters"):
        authorize_url(make_app_authorization(settings), "Shop EU")


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"stripe_app_secret_key": None}, 502, "STRIPE_APP_SECRET_KEY is not set."),
        ({"stripe_app_secret_key": SecretStr("sk_test_wrong")}, 502, "Stripe does not accept STRIPE_APP_SECRET_KEY."),
    ],
)
def test_a_wrong_key_of_the_app_is_named(app: App, changes: dict[str, Any], status: int, sentence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        wrong = app.settings.model_copy(update={"recoup_webhook_base_url": base_url, **changes})
        app.server.app.options = AppOptions(CLIENT_ID, SECRET_KEY, [base_url + CALLBACK_PATH])
        with serving(listening, wrong):
            page = requests.get(authorize_url(make_app_authorization(wrong), "shop"), timeout=20)
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
