"""The check of a key: what it can read, and keys and networks with which nothing can be read."""

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from orchestration.simulator import DEFAULT_API_KEY, ApiKey, Fault, SimulatedAccount, SimulatorServer
from orchestration.simulator.server.keys import READ_PERMISSION
from orchestration.stripe_api import (
    CHECK_RETRY,
    RESOURCES,
    AuthenticationFailed,
    KeyCheck,
    StripeApiError,
    StripeClient,
    check_resources,
    permissions_link,
)

PERMISSIONS = {resource.name: resource.permission for resource in RESOURCES}
CORE = {resource.permission for resource in RESOURCES if resource.group == "core"}
NEEDED = ["payment_intents", "charges", "events", "refunds", "disputes"]
KEYS_PAGE = "https://dashboard.stripe.com/apikeys"


@pytest.fixture(scope="module")
def account() -> SimulatedAccount:
    return SimulatedAccount(seed=6, payments=60, days=10)


@pytest.fixture
def server(account: SimulatedAccount) -> Iterator[SimulatorServer]:
    keys = {
        DEFAULT_API_KEY: None,
        "rk_test_for_all_groups": ApiKey(set(PERMISSIONS.values())),
        "rk_test_for_core_alone": ApiKey(CORE),
        "rk_test_without_charges": ApiKey(set(PERMISSIONS.values()) - {"rak_charge_read"}),
        "rk_test_without_payments": ApiKey(set(PERMISSIONS.values()) - {"rak_payment_intent_read"}),
        "rk_test_for_nothing": ApiKey(()),
        "rk_test_rolled_QX71": ApiKey(state="expired"),
        "rk_test_elsewhere_QX72": ApiKey(state="ip_refused"),
        "rk_test_uninstalled_QX73": ApiKey(state="revoked"),
    }
    with SimulatorServer(account, keys=keys) as running:
        yield running


def check(key: str, address: str) -> KeyCheck:
    client = StripeClient(SecretStr(key), api_base=address, retry=CHECK_RETRY, sleep=lambda seconds: None)
    try:
        return check_resources(client)
    finally:
        client.close()


def unreadable(found: KeyCheck) -> dict[str, str | None]:
    """Return the resources that could not be read, with the missing permission of each."""
    return {each.resource.name: each.missing_permission for each in found.resources if not each.is_readable}


@pytest.mark.parametrize("key", [DEFAULT_API_KEY, "rk_test_for_all_groups"])
def test_a_key_with_all_permissions_can_read_every_resource(key: str, server: SimulatorServer) -> None:
    found = check(key, server.url)
    assert [each.resource for each in found.resources] == list(RESOURCES)
    assert unreadable(found) == {}
    assert found.is_usable
    assert server.requests.total == len(RESOURCES), "one request for each resource"


def test_every_missing_permission_is_named_as_stripe_names_it(server: SimulatorServer) -> None:
    """The simulated account has its own table of permissions. The four that the check leaves out are listed here."""
    assert PERMISSIONS.items() <= READ_PERMISSION.items()
    assert unreadable(check("rk_test_for_nothing", server.url)) == PERMISSIONS
    assert READ_PERMISSION.keys() - PERMISSIONS.keys() == {
        "account",
        "invoice_payments",
        "reporting/report_types",
        "webhook_endpoints",
    }


def test_a_key_without_charges_is_not_usable_and_the_missing_permission_is_named(server: SimulatorServer) -> None:
    found = check("rk_test_without_charges", server.url)
    assert unreadable(found) == {"charges": "rak_charge_read", "refunds": "rak_charge_read"}
    assert [each.resource.name for each in found.missing_required] == ["charges", "refunds"]
    assert not found.is_usable


def test_a_key_without_payment_intents_cannot_read_their_events_either(server: SimulatorServer) -> None:
    found = check("rk_test_without_payments", server.url)
    assert unreadable(found) == dict.fromkeys(["payment_intents", "events"], "rak_payment_intent_read")
    assert server.requests.total == len(RESOURCES), "the remaining resources are checked as well"


def test_a_key_for_only_the_core_resources_is_usable(server: SimulatorServer) -> None:
    found = check("rk_test_for_core_alone", server.url)
    assert unreadable(found).keys() == {each.name for each in RESOURCES if each.group != "core"}
    assert found.is_usable


def test_the_resources_that_recoup_reads_are_required_and_have_a_purpose() -> None:
    assert [resource.name for resource in RESOURCES if resource.is_required] == NEEDED
    assert [resource.name for resource in RESOURCES[:5]] == NEEDED, "required resources come first"
    assert all(resource.purpose != "nothing yet" for resource in RESOURCES if resource.is_required)


@pytest.mark.parametrize(
    ("key", "fault", "text"),
    [
        (
            "rk_test_unknown_QX74",
            "wrong_key",
            "Stripe does not accept this API key. Check that it is complete (rk_live_… or rk_test_…) and that it is "
            f"still listed at {KEYS_PAGE}.",
        ),
        (
            "rk_test_rolled_QX71",
            "expired",
            "This API key has expired or was rolled, so Stripe no longer accepts it. Create a new restricted key at "
            f"{KEYS_PAGE} and use that one.",
        ),
        (
            "rk_test_elsewhere_QX72",
            "ip_refused",
            "This API key may not be used from this machine's IP address. Add the address to the key's allow-list at "
            f"{KEYS_PAGE}, or remove the list.",
        ),
        (
            "rk_test_uninstalled_QX73",
            "revoked",
            "This API key no longer has access to the account: it was revoked, or the account was closed or "
            f"disconnected. Create a new restricted key in that account at {KEYS_PAGE} and use that one.",
        ),
        (
            "pk_test_of_a_browser_QX75",
            "wrong_kind",
            "This is a publishable API key, which is made for browsers and cannot read. Use a restricted key "
            f"(rk_live_… or rk_test_…) from {KEYS_PAGE}.",
        ),
        (
            "sk_org_test_of_a_group_QX76",
            "wrong_kind",
            "This is the API key of an organization, and Recoup reads one account at a time. Create a restricted key "
            f"in the account itself at {KEYS_PAGE} and use that one.",
        ),
    ],
)
def test_an_invalid_key_fails_with_one_request_and_not_one_for_each_resource(
    key: str, fault: str, text: str, server: SimulatorServer
) -> None:
    with pytest.raises(AuthenticationFailed) as failure:
        check(key, server.url)
    assert (failure.value.fault, str(failure.value)) == (fault, text)
    assert key[-4:] not in text
    assert server.requests.total == 1


@pytest.mark.parametrize(
    ("fault", "way", "text"),
    [
        (
            "no_network",
            lambda server: "http://127.0.0.1:9",
            "{base} cannot be reached: the connection is refused. Check this machine's network, its firewall and its "
            "proxy, and STRIPE_API_BASE if it is set.",
        ),
        (
            "tls",
            lambda server: server.url.replace("http", "https"),
            "No trusted TLS connection to {base} could be made. Check this machine's date and time; if a "
            "proxy or firewall decrypts the traffic, set REQUESTS_CA_BUNDLE to the PEM file of its certificate "
            "authority.",
        ),
        (
            "stripe_down",
            lambda server: server.faults.add(Fault("server_error", times=99)) or server.url,
            "{base} gave no usable answer to GET /v1/payment_intents in 2 tries. Last: HTTP 500. Try again later; "
            "https://status.stripe.com lists outages.",
        ),
    ],
)
def test_a_network_failure_is_reported_once_after_two_tries(
    fault: str, way: Callable[[SimulatorServer], str], text: str, server: SimulatorServer
) -> None:
    base = way(server)
    with pytest.raises(StripeApiError) as failure:
        check(DEFAULT_API_KEY, base)
    assert (failure.value.fault, str(failure.value)) == (fault, text.format(base=base))
    assert server.requests.total <= 2


def test_a_key_that_is_revoked_during_the_check_is_reported_once(server: SimulatorServer) -> None:
    server.faults.add(Fault("no_access", path="/v1/disputes"))
    with pytest.raises(AuthenticationFailed) as failure:
        check(DEFAULT_API_KEY, server.url)
    assert failure.value.fault == "revoked"
    assert server.requests.total <= len(RESOURCES)


def test_a_temporary_fault_is_retried(server: SimulatorServer) -> None:
    server.faults.add(Fault("server_error"))
    server.faults.add(Fault("rate_limit", path="/v1/charges"))
    assert check(DEFAULT_API_KEY, server.url).is_usable
    assert server.requests.total == len(RESOURCES) + 2


class _NotForThisAccount(http.server.BaseHTTPRequestHandler):
    """Answer with empty lists, and with refusals for three resources."""

    def do_GET(self) -> None:
        refusals = {
            "/v1/topups": (400, "Your account is not set up to use Top-ups. Please visit https://dashboard.stripe.com"),
            "/v1/files": (403, "The required permissions are not available for use by restricted keys."),
            "/v1/payouts": (400, "Received unknown parameter: limit"),
        }
        status, message = refusals.get(self.path.partition("?")[0], (200, ""))
        body = b'{"error":{"message":"%s"}}' % message.encode() if message else b'{"data":[],"has_more":false}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


def test_a_resource_that_is_refused_for_another_reason_is_listed_with_that_reason() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NotForThisAccount) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        found = check(DEFAULT_API_KEY, f"http://127.0.0.1:{running.server_port}")
        running.shutdown()
    assert found.is_usable
    assert {each.resource.name: each.problem for each in found.resources if not each.is_readable} == {
        "files": "Stripe refuses GET /v1/files: The required permissions are not available for use by restricted keys.",
        "payouts": "Stripe rejected GET /v1/payouts (HTTP 400): Received unknown parameter: limit",
        "topups": "This account is not set up to use Top-ups.",
    }


def test_the_link_opens_the_form_for_new_keys_with_the_permissions_filled_in() -> None:
    assert permissions_link(["rak_charge_read", "rak_event_read", "rak_charge_read"], name="Recoup, main shop") == (
        "https://dashboard.stripe.com/apikeys/create?name=Recoup%2C%20main%20shop"
        "&permissions[]=rak_charge_read&permissions[]=rak_event_read"
    )
    assert permissions_link(["rak_file_read"], livemode=False) == (
        "https://dashboard.stripe.com/test/apikeys/create?name=Recoup&permissions[]=rak_file_read"
    )
