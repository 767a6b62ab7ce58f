"""A Stripe App over HTTP: consent, exchange, expiry of codes and tokens, uninstalling."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from orchestration.simulator import AppOptions, Fault, SimulatedAccount, SimulatorServer, WebhookEndpoint
from tests.engines.simulator.conftest import Receiver, settled

CLIENT_ID, SECRET_KEY, BACK = "ca_simulated", "sk_test_of_the_developer", "https://recoup.example.com/callback"
HOUR = 3_600


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    account, shop = SimulatedAccount(seed=71, payments=60, days=40), SimulatedAccount(seed=72, payments=60, days=40)
    with SimulatorServer(account, connected=[shop]) as running:
        running.app.options = AppOptions(CLIENT_ID, SECRET_KEY, [BACK])
        yield running


def agree(server: SimulatorServer, **query: str) -> requests.Response:
    asked = {"client_id": CLIENT_ID, "redirect_uri": BACK, "state": "s t&te"} | query
    return requests.get(f"{server.url}/oauth/v2/authorize", params=asked, allow_redirects=False, timeout=20)


def sent_back(answer: requests.Response) -> dict[str, str]:
    assert answer.status_code == 302
    location = urlsplit(answer.headers["Location"])
    assert f"{location.scheme}://{location.netloc}{location.path}" == BACK
    return dict(parse_qsl(location.query))


def exchange(server: SimulatorServer, *, key: str = SECRET_KEY, **form: str) -> requests.Response:
    return requests.post(f"{server.url}/v1/oauth/token", data=form, auth=(key, ""), timeout=20)


def install(server: SimulatorServer) -> dict[str, Any]:
    code = sent_back(agree(server))["code"]
    answer = exchange(server, grant_type="authorization_code", code=code)
    assert answer.status_code == 200
    tokens: dict[str, Any] = answer.json()
    return tokens


def refresh(server: SimulatorServer, refresh_token: str) -> requests.Response:
    return exchange(server, grant_type="refresh_token", refresh_token=refresh_token)


def read(server: SimulatorServer, token: str, path: str = "payment_intents") -> requests.Response:
    return requests.get(f"{server.url}/v1/{path}", headers={"Authorization": f"Bearer {token}"}, timeout=20)


def test_consent_gives_a_token_that_reads_the_account(server: SimulatorServer) -> None:
    back = sent_back(agree(server))
    assert back.keys() == {"code", "state"}
    assert back["state"] == "s t&te"
    tokens = exchange(server, grant_type="authorization_code", code=back["code"]).json()
    assert tokens.keys() == {
        "access_token",
        "livemode",
        "refresh_token",
        "scope",
        "stripe_publishable_key",
        "stripe_user_id",
        "token_type",
    }
    assert (tokens["stripe_user_id"], tokens["livemode"]) == (server.account.id, False)
    assert read(server, tokens["access_token"], "account").json()["id"] == server.account.id
    assert server.app.installed_by == [server.account.id]


def test_a_connected_account_can_install_the_app(server: SimulatorServer) -> None:
    shop = server.connections.accounts()[0]
    server.app.account_id = shop.id
    tokens = install(server)
    assert tokens["stripe_user_id"] == shop.id
    intent = read(server, tokens["access_token"]).json()["data"][0]["id"]
    assert intent in shop.intents


def test_denied_consent_gives_no_code(server: SimulatorServer) -> None:
    server.app.denies = True
    back = sent_back(agree(server))
    assert (back["error"], back["state"], "code" in back) == ("access_denied", "s t&te", False)


@pytest.mark.parametrize("query", [{"client_id": "ca_other"}, {"redirect_uri": "https://thief.example.com/"}])
def test_the_consent_page_redirects_only_to_allowed_uris(server: SimulatorServer, query: dict[str, str]) -> None:
    assert agree(server, **query).status_code == 400


def test_an_unpublished_app_has_its_own_consent_page(server: SimulatorServer) -> None:
    url = f"{server.url}/oauth/v2/chnlink_61abc/authorize?client_id={CLIENT_ID}"
    assert sent_back(requests.get(url, allow_redirects=False, timeout=20)).keys() == {"code"}


def test_a_code_is_valid_once_and_for_five_minutes(server: SimulatorServer) -> None:
    first, second = (sent_back(agree(server))["code"] for _ in range(2))
    assert exchange(server, grant_type="authorization_code", code=first).status_code == 200
    server.account.now += 300
    for code in (first, second, "ac_made_up"):
        answer = exchange(server, grant_type="authorization_code", code=code)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert answer.json()["error_description"]


def test_an_access_token_is_valid_for_an_hour(server: SimulatorServer) -> None:
    token = install(server)["access_token"]
    server.account.now += HOUR - 1
    assert read(server, token).status_code == 200
    server.account.now += 1
    answer = read(server, token)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "api_key_expired")


def test_a_refresh_token_is_rolled_at_each_exchange(server: SimulatorServer) -> None:
    first = install(server)
    second = refresh(server, first["refresh_token"]).json()
    assert {"access_token", "refresh_token"} <= second.keys()
    assert not {first["access_token"], first["refresh_token"]} & {second["access_token"], second["refresh_token"]}
    again = refresh(server, first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    server.account.now += HOUR
    third = refresh(server, second["refresh_token"]).json()
    assert read(server, third["access_token"]).status_code == 200


def test_a_refresh_token_is_valid_for_a_year(server: SimulatorServer) -> None:
    token = install(server)["refresh_token"]
    server.account.now += 365 * 86_400
    assert refresh(server, token).json()["error"] == "invalid_grant"


def test_only_the_developers_key_can_exchange_codes_and_tokens(server: SimulatorServer) -> None:
    code = sent_back(agree(server))["code"]
    answer = exchange(server, key="sk_test_of_another", grant_type="authorization_code", code=code)
    assert answer.status_code == 401
    assert exchange(server, grant_type="authorization_code", code=code).status_code == 200


@pytest.mark.parametrize(
    ("form", "error"), [({}, "invalid_request"), ({"grant_type": "password"}, "unsupported_grant_type")]
)
def test_an_invalid_token_request_gets_an_oauth_error(
    server: SimulatorServer, form: dict[str, str], error: str
) -> None:
    answer = exchange(server, **form)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_an_app_can_read_only_what_its_permissions_allow(server: SimulatorServer) -> None:
    server.app.options = AppOptions(CLIENT_ID, SECRET_KEY, [BACK], permissions=["charge_read"])
    token = install(server)["access_token"]
    assert (read(server, token, "charges").status_code, read(server, token).status_code) == (200, 403)


def test_uninstalling_sends_an_event_and_revokes_the_tokens(server: SimulatorServer, receiver: Receiver) -> None:
    tokens = install(server)
    kind = "account.application.deauthorized"
    endpoint = server.deliverer.register(WebhookEndpoint(receiver.url, enabled_events=(kind,), connect=True))
    gone = requests.delete(f"{server.url}/_sim/app", timeout=20)
    assert gone.json()["installed_by"] == []
    answer = read(server, tokens["access_token"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "account_invalid")
    assert refresh(server, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    settled(server, endpoint)
    (event,) = (posted.event for posted in receiver.posted)
    assert (event["type"], event["account"]) == (kind, server.account.id)
    assert event["data"]["object"]["id"] == CLIENT_ID
    assert requests.delete(f"{server.url}/_sim/app", timeout=20).status_code == 404


def test_the_app_can_be_configured_over_http_without_showing_its_key(server: SimulatorServer) -> None:
    wanted = {"client_id": "ca_new", "secret_key": "sk_test_new", "redirect_uris": [BACK], "denies": True}
    shown = requests.post(f"{server.url}/_sim/app", json=wanted, timeout=20)
    assert "sk_test_new" not in shown.text
    assert (shown.json()["client_id"], shown.json()["denies"]) == ("ca_new", True)
    assert "error" in sent_back(agree(server, client_id="ca_new"))
    changed = requests.post(
        f"{server.url}/_sim/app", json={"permissions": ["charge_read"], "denies": False}, timeout=20
    )
    assert (changed.json()["permissions"], changed.json()["client_id"]) == (["charge_read"], "ca_new")
    for wrong in ({"client": "ca"}, {"account": "acct_none"}):
        assert requests.post(f"{server.url}/_sim/app", json=wrong, timeout=20).status_code in (400, 404)


def test_a_lost_response_has_still_rolled_the_token(server: SimulatorServer) -> None:
    token = install(server)["refresh_token"]
    server.faults.add(Fault("truncate", path="/v1/oauth/token"))
    assert refresh(server, token).status_code == 200
    assert refresh(server, token).json()["error"] == "invalid_grant"
