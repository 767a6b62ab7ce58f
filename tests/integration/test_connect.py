"""`recoup connect`, `check` and `integrations` as their user meets them: every fault of a key is a screen of its own.

Keys, networks and servers are real: HTTP to the simulated account, TLS on this machine, a terminal for what is hidden.
"""

import http.server
import os
import pty
import re
import shutil
import ssl
import subprocess
import termios
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from orchestration import pipeline
from orchestration.accounts.registry import IntegrationError
from orchestration.config.credentials import mask_key
from orchestration.config.settings import Settings
from orchestration.simulator import ApiKey, Fault, SimulatedAccount, SimulatorServer
from orchestration.simulator.server.keys import READ_PERMISSION
from tests.support.built_folder import BuiltFolder
from tests.support.processes import RECOUP, find_free_port
from tests.support.run_command import CommandResult, run_recoup
from tests.support.stripe_router import StripeRouter

ONE_SCREEN = 24

GOOD = "rk_test_51QzXwVuKpRmNhGqTb7good"
SECRET_KEY = "sk_test_51QzXwVuKpRmNhGqTb7full"
CORE_ALONE = "rk_test_51QzXwVuKpRmNhGqTb7core"
LACKING = "rk_test_51QzXwVuKpRmNhGqTb7lack"
EXPIRED = "rk_test_51QzXwVuKpRmNhGqTb7roll"
ELSEWHERE = "rk_test_51QzXwVuKpRmNhGqTb7ipad"
REVOKED = "rk_test_51QzXwVuKpRmNhGqTb7gone"
UNKNOWN = "rk_test_51QzXwVuKpRmNhGqTb7none"
VISIBLE = "rk_live_61AaBbCcDdEeFfGgHh9seen"
LIVE = "rk_live_51QzXwVuKpRmNhGqTb7live"

NEEDED = ("payment_intent_read", "charge_read", "event_read", "dispute_read")
GROUPS = READ_PERMISSION.keys() - {"account", "invoice_payments", "webhook_endpoints"}
KEYS = {
    GOOD: ApiKey({READ_PERMISSION[name] for name in GROUPS}),
    SECRET_KEY: None,
    CORE_ALONE: ApiKey(NEEDED),
    LACKING: ApiKey(("payment_intent_read", "dispute_read", "event_read")),
    EXPIRED: ApiKey(state="expired"),
    ELSEWHERE: ApiKey(state="ip_refused"),
    REVOKED: ApiKey(state="revoked"),
}


@pytest.fixture(scope="module")
def account() -> SimulatedAccount:
    return SimulatedAccount(seed=6, payments=60, days=10)


@pytest.fixture
def server(account: SimulatedAccount) -> Iterator[SimulatorServer]:
    with SimulatorServer(account, keys=KEYS) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def connected(server: SimulatorServer, data: Path) -> dict[str, str]:
    """The environment in which the account is connected as `shop`."""
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data)}
    assert run_recoup("connect", "--name", "shop", typed=GOOD, **variables).code == 0
    return variables


def read_saved(data: Path) -> dict[str, Any]:
    """What is kept: the integrations and the names of the files with secrets."""
    path = data / "integrations.toml"
    integrations = tomllib.loads(path.read_text()) if path.exists() else {}
    secrets = [str(each.relative_to(data)) for each in sorted(data.glob("secrets/*/*"))]
    return {"integrations": integrations, "secrets": secrets}


NOTHING: dict[str, Any] = {"integrations": {}, "secrets": []}


def screen(result: CommandResult, address: str) -> str:
    """What stood on the screen, but for what differs from run to run: the address, the clock, how long it waited."""
    text = re.sub(r"\[\d\d/\d\d/\d\d \d\d:\d\d:\d\d\]", "[mm/dd/yy hh:mm:ss]", result.screen)
    return re.sub(r"\d\.\d s\.", "0.0 s.", text.replace(address, "{address}"))


def assert_key_is_masked(key: str, result: CommandResult) -> None:
    """Nothing of the key is told but its prefix and its last four characters."""
    shown = result.out + result.err
    assert "Traceback" not in shown
    body = key.rpartition("_")[2]
    shown = shown.replace(mask_key(SecretStr(key)), "")
    assert [body[at : at + 5] for at in range(len(body) - 4) if body[at : at + 5] in shown] == []


KEY_PLACE = """The API key starts with rk_live_ or rk_test_
and is in Stripe's dashboard under Developers > API keys > Restricted keys:
https://dashboard.stripe.com/apikeys."""

FAULTS = {
    "wrong key": (
        UNKNOWN,
        """rk_test_…none: Stripe does not accept this API key. Check that it is complete
(rk_live_… or rk_test_…) and that it is still listed at
https://dashboard.stripe.com/apikeys.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "a key of the other mode of the account, which is unknown in this one": (
        LIVE,
        """rk_live_…live: Stripe does not accept this API key. Check that it is complete
(rk_live_… or rk_test_…) and that it is still listed at
https://dashboard.stripe.com/apikeys.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "expired": (
        EXPIRED,
        """rk_test_…roll: This API key has expired or was rolled, so Stripe no longer
accepts it. Create a new restricted key at https://dashboard.stripe.com/apikeys
and use that one.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "revoked": (
        REVOKED,
        """rk_test_…gone: This API key no longer has access to the account: it was revoked,
or the account was closed or disconnected. Create a new restricted key in that
account at https://dashboard.stripe.com/apikeys and use that one.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "IP address not allowed": (
        ELSEWHERE,
        """rk_test_…ipad: This API key may not be used from this machine's IP address. Add
the address to the key's allow-list at https://dashboard.stripe.com/apikeys, or
remove the list.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "publishable": (
        "pk_test_51QzXwVuKpRmNhGqTb7publ",
        """This is a publishable key, which is made for browsers; Recoup does not need it.
The API key starts with rk_live_ or rk_test_ and is in Stripe's dashboard under
Developers > API keys > Restricted keys: https://dashboard.stripe.com/apikeys.""",
    ),
    "signing secret": (
        "whsec_51QzXwVuKpRmNhGqTb7sign",
        """This is the signing secret of a webhook endpoint; enter it with `recoup webhooks
secret`. The API key starts with rk_live_ or rk_test_ and is in Stripe's
dashboard under Developers > API keys > Restricted keys:
https://dashboard.stripe.com/apikeys.""",
    ),
    "webhook endpoint": (
        "we_1QzXwVuKpRmNhGqTb7hook",
        """This is the id of a webhook endpoint or event destination, not its secret. The
API key starts with rk_live_ or rk_test_ and is in Stripe's dashboard under
Developers > API keys > Restricted keys: https://dashboard.stripe.com/apikeys.""",
    ),
    "account": (
        "acct_1QzXwVuKpRmNhGqTb7acct",
        """This is the id of an account; if Recoup needs it, set STRIPE_ACCOUNT_ID. The API
key starts with rk_live_ or rk_test_ and is in Stripe's dashboard under
Developers > API keys > Restricted keys: https://dashboard.stripe.com/apikeys.""",
    ),
    "organization": (
        "sk_org_test_51QzXwVuKpRmNhGqTb7orga",
        """This is the API key of an organization; Recoup takes the key of one account. The
API key starts with rk_live_ or rk_test_ and is in Stripe's dashboard under
Developers > API keys > Restricted keys: https://dashboard.stripe.com/apikeys.""",
    ),
    "nothing": (
        "",
        """Nothing was pasted. The API key starts with rk_live_ or rk_test_ and is in
Stripe's dashboard under Developers > API keys > Restricted keys:
https://dashboard.stripe.com/apikeys.""",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unusable_key_is_explained_and_not_saved(fault: str, server: SimulatorServer, data: Path) -> None:
    key, expected = FAULTS[fault]
    result = run_recoup("connect", "--name", "shop", typed=key, STRIPE_API_BASE=server.url, RECOUP_DATA_DIR=str(data))
    assert (result.code, result.out, screen(result, server.url)) == (1, "", expected)
    assert len(result.screen.splitlines()) <= ONE_SCREEN
    assert read_saved(data) == NOTHING
    assert_key_is_masked(key, result)


class _SignInPage(http.server.BaseHTTPRequestHandler):
    """What a network shows in Stripe's place."""

    def do_GET(self) -> None:
        page = b"<!doctype html><title>Welcome to our network</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *arguments: object) -> None:
        """Nothing: pytest's output is not this server's log."""


@contextmanager
def served(certificate: Path | None = None) -> Iterator[str]:
    """The page at an address of this machine, by TLS with a certificate that nobody has vouched for."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _SignInPage) as running:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            running.socket = context.wrap_socket(running.socket, server_side=True, do_handshake_on_connect=False)
        running.daemon_threads = True
        running.handle_error = lambda *_: None  # type: ignore[method-assign]  # a refused handshake
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{running.server_port}"
        running.shutdown()


def self_signed(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "self_signed.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", str(path), "-out", f"{path}.crt", *subject]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@contextmanager
def faulty(server: SimulatorServer, fault: Fault) -> Iterator[str]:
    server.faults.add(fault)
    yield server.url


@contextmanager
def unused_address() -> Iterator[str]:
    yield f"http://127.0.0.1:{find_free_port()}"


NETWORKS: dict[str, tuple[Callable[[SimulatorServer, Path], Any], str]] = {
    "no network": (
        lambda server, folder: unused_address(),
        """[mm/dd/yy hh:mm:ss] WARNING  GET /v1/payment_intents: the connection is refused.
                             Trying again in 0.0 s.
{address} cannot be reached: the connection is refused. Check this
machine's network, its firewall and its proxy, and STRIPE_API_BASE if it is set.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "TLS": (
        lambda server, folder: served(self_signed(folder)),
        """No trusted TLS connection to {address} could be made. Check this
machine's date and time; if a proxy or firewall decrypts the traffic, set
REQUESTS_CA_BUNDLE to the PEM file of its certificate authority.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "Stripe down": (
        lambda server, folder: faulty(server, Fault("server_error", times=99, status=503)),
        """[mm/dd/yy hh:mm:ss] WARNING  GET /v1/payment_intents: HTTP 503. Trying again in
                             0.0 s.
{address} gave no usable answer to GET /v1/payment_intents in 2
tries. Last: HTTP 503. Try again later; https://status.stripe.com lists outages.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "rate limits all the time": (
        lambda server, folder: faulty(server, Fault("rate_limit", times=99)),
        """{address} gave no usable answer to GET /v1/payment_intents in 2
tries. Last: Stripe's rate limit (global-rate). Try again later;
https://status.stripe.com lists outages.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "not Stripe": (
        lambda server, folder: served(),
        """[mm/dd/yy hh:mm:ss] WARNING  GET /v1/payment_intents: its answer is not JSON.
                             Trying again in 0.0 s.
{address} does not answer as Stripe does: its answer is not JSON. A
proxy, a firewall or the sign-in page of a network answers instead; open a web
page on this machine to see it, and check STRIPE_API_BASE if it is set.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_error_is_explained_and_nothing_is_saved(
    network: str, server: SimulatorServer, data: Path, tmp_path: Path
) -> None:
    enter, expected = NETWORKS[network]
    with enter(server, tmp_path / "certificates") as address:
        result = run_recoup("connect", "--name", "shop", typed=GOOD, STRIPE_API_BASE=address, RECOUP_DATA_DIR=str(data))
    assert (result.code, result.out, screen(result, address)) == (1, "", expected)
    assert len(result.screen.splitlines()) <= ONE_SCREEN
    assert read_saved(data) == NOTHING
    assert_key_is_masked(GOOD, result)


READABLE = """      resource              group      needed for, or missing permission
 yes  payment intents *     core       what is owed, and what became of it
 yes  charges *             core       every attempt, and why it was declined
 yes  events *              core       what has changed since the last sync
 yes  refunds *             core       what was given back
 yes  disputes *            core       what the payer's bank took back
 yes  balance               core       the mode, where the key does not tell it
 yes  balance transactions  core       nothing yet
 yes  customers             core       nothing yet
 yes  files                 core       nothing yet
 yes  payment methods       core       nothing yet
 yes  payouts               core       nothing yet
 yes  products              core       nothing yet
 yes  setup intents         core       nothing yet
 yes  accounts              Connect    the account's id, those connected to it
 yes  application fees      Connect    nothing yet
 yes  topups                Connect    nothing yet
 yes  transfers             Connect    nothing yet
 yes  report runs           Reporting  nothing yet
* required"""
OPTIONAL = """ no   balance               core       rak_balance_read
 no   balance transactions  core       rak_balance_transaction_source_read
 no   customers             core       rak_customer_read
 no   files                 core       rak_file_read
 no   payment methods       core       rak_payment_method_read
 no   payouts               core       rak_payout_read
 no   products              core       rak_product_read
 no   setup intents         core       rak_setup_intent_read
 no   accounts              Connect    rak_connected_account_read
 no   application fees      Connect    rak_application_fee_read
 no   topups                Connect    rak_top_up_read
 no   transfers             Connect    rak_transfer_read
 no   report runs           Reporting  rak_report_runs_and_report_types_read
* required"""
WITHOUT_OPTIONAL = "\n".join([*READABLE.splitlines()[:6], OPTIONAL])
WITHOUT_CHARGES = WITHOUT_OPTIONAL.replace(
    " yes  charges *             core       every attempt, and why it was declined",
    " no   charges *             core       rak_charge_read",
).replace(
    " yes  refunds *             core       what was given back",
    " no   refunds *             core       rak_charge_read",
)
LINK = "  https://dashboard.stripe.com/test/apikeys/create?name=Recoup" + "".join(
    f"&permissions[]=rak_{name}" for name in NEEDED
)
MAKE_ANOTHER = f"Edit the key at Stripe, or create one with exactly these permissions:\n{LINK}"
SAVED = """Saved as shop in integrations.toml. The key is in its own file under secrets/.
  Read it now             recoup sync shop
  Receive webhook events  recoup webhooks enable shop
  Read it on a schedule   recoup serve (if running: reload the code location)"""
ALL_NEEDED = "Recoup can read everything it needs."
CHARGES_MISSING = "This key lacks required permissions: rak_charge_read."


def works(key: str, account_id: str) -> str:
    return f"{mask_key(SecretStr(key))} works: {account_id}, test mode, API version\n2026-10-28.endive."


@pytest.mark.parametrize(
    ("key", "code", "is_saved", "lines"),
    [
        (GOOD, 0, True, [READABLE, ALL_NEEDED, SAVED]),
        (
            SECRET_KEY,
            0,
            True,
            [
                "This is a secret key, which has every permission. A restricted key is enough.",
                READABLE,
                ALL_NEEDED,
                SAVED,
            ],
        ),
        (CORE_ALONE, 0, True, [WITHOUT_OPTIONAL, ALL_NEEDED, SAVED]),
        (
            LACKING,
            3,
            False,
            [
                WITHOUT_CHARGES,
                CHARGES_MISSING,
                MAKE_ANOTHER,
                "Nothing was saved. To save it anyway, add --save-anyway.",
            ],
        ),
    ],
    ids=["every permission", "a secret key", "what is optional is missing", "what is required is missing"],
)
def test_a_working_key_lists_its_permissions_and_is_saved_if_they_suffice(
    key: str, code: int, is_saved: bool, lines: list[str], server: SimulatorServer, data: Path
) -> None:
    result = run_recoup("connect", "--name", "shop", typed=key, STRIPE_API_BASE=server.url, RECOUP_DATA_DIR=str(data))
    assert result.screen == "\n".join([works(key, server.account.id), *lines])
    assert result.code == code
    assert all(len(line) <= 80 for line in result.screen.splitlines() if line != LINK)
    table = {"account_id": server.account.id, "description": "", "livemode": False}
    assert read_saved(data) == (
        {"integrations": {"shop": table}, "secrets": ["secrets/shop/api_key"]} if is_saved else NOTHING
    )
    assert_key_is_masked(key, result)


@pytest.mark.parametrize(("key", "code"), [(LACKING, 3), (UNKNOWN, 1)])
def test_save_anyway_saves_an_unusable_key(key: str, code: int, server: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data)}
    result = run_recoup("connect", "--name", "shop", "--save-anyway", typed=key, **variables)
    assert result.code == code
    assert result.screen.endswith(SAVED)
    assert read_saved(data)["secrets"] == ["secrets/shop/api_key"]
    assert (data / "secrets" / "shop" / "api_key").read_text() == f"{key}\n"
    assert_key_is_masked(key, result)


def test_unusable_keys_may_belong_to_different_accounts(data: Path) -> None:
    variables = {"STRIPE_API_BASE": f"http://127.0.0.1:{find_free_port()}", "RECOUP_DATA_DIR": str(data)}
    for name, key in (("shop", GOOD), ("club", UNKNOWN)):
        assert run_recoup("connect", "--name", name, "--save-anyway", typed=key, **variables).code == 1
    assert read_saved(data)["integrations"].keys() == {"shop", "club"}


def test_a_key_is_read_from_a_text_file(
    server: SimulatorServer, data: Path, tmp_path: Path, holding_secrets: set[Path]
) -> None:
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data)}
    path = tmp_path / "key.txt"
    holding_secrets.add(path)
    path.write_bytes(b"\xff\xfe" + GOOD.encode())
    refused = run_recoup("connect", "--name", "shop", "--key-file", str(path), **variables)
    assert (refused.code, refused.err.partition(".")[0]) == (1, "This is not an API key")
    path.write_text(f"{GOOD}\n")
    assert run_recoup("connect", "--name", "shop", "--key-file", str(path), **variables).code == 0
    missing = run_recoup("connect", "--name", "club", "--key-file", str(tmp_path / "none"), **variables)
    assert (missing.code, " ".join(missing.err.split())[-42:]) == (1, "cannot be used: no such file or directory.")


@pytest.mark.parametrize("stated", [{}, {"STRIPE_ACCOUNT_ID": "its own"}], ids=["known from Stripe", "stated"])
def test_a_connected_account_cannot_be_connected_by_another_key(
    stated: dict[str, str], server: SimulatorServer, connected: dict[str, str], data: Path
) -> None:
    before = read_saved(data)
    again = run_recoup("connect", "--name", "club", typed=SECRET_KEY, **connected)
    assert (again.code, again.err.split(" To give")[0]) == (
        1,
        "Integration 'shop' (secrets/shop/api_key) reads this account already.",
    )
    default = {"STRIPE_API_KEY": GOOD, "RECOUP_DATA_DIR": str(data / "other"), "STRIPE_API_BASE": server.url}
    default |= dict.fromkeys(stated, server.account.id)
    beside = run_recoup("connect", "--name", "club", typed=SECRET_KEY, **default)
    assert (beside.code, beside.err) == (1, "Integration 'default' (STRIPE_API_KEY) reads this account already.\n")
    assert (read_saved(data), read_saved(data / "other")) == (before, NOTHING)


def test_an_unusable_key_does_not_block_another_account(server: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data), "STRIPE_API_KEY": EXPIRED}
    assert run_recoup("connect", "--name", "shop", typed=GOOD, **variables).code == 0


def test_check_prints_what_connect_prints_and_exits_with_a_code_for_scripts(
    server: SimulatorServer, connected: dict[str, str]
) -> None:
    good = run_recoup("check", "shop", **connected)
    assert (good.code, good.screen) == (0, "\n".join([works(GOOD, server.account.id), READABLE, ALL_NEEDED]))
    server.keys.put(GOOD, ApiKey(("payment_intent_read", "dispute_read", "event_read")))
    lacking = run_recoup("check", **connected)
    assert (lacking.code, CHARGES_MISSING in lacking.screen) == (3, True)
    server.keys.put(GOOD, ApiKey(state="expired"))
    expired = run_recoup("check", **connected)
    assert (expired.code, expired.screen) == (
        1,
        """rk_test_…good, from secrets/shop/api_key: This API key has expired or was
rolled, so Stripe no longer accepts it. Create a new restricted key at
https://dashboard.stripe.com/apikeys and use that one.""",
    )
    assert run_recoup("check", "club", **connected).err == "There is no integration 'club'. There are: shop.\n"
    without = run_recoup("check", RECOUP_DATA_DIR=str(Path(connected["RECOUP_DATA_DIR"]) / "none"))
    assert (without.code, "STRIPE_API_KEY is not set." in without.text) == (1, True)


def test_check_continues_after_a_failure_and_exits_with_the_worst_code(
    server: SimulatorServer, connected: dict[str, str]
) -> None:
    run_recoup("connect", "--name", "club", "--save-anyway", typed=UNKNOWN, **connected)
    run_recoup("connect", "--name", "last", "--save-anyway", typed=REVOKED, **connected)
    result = run_recoup("check", **connected)
    assert result.code == 1
    assert [line for line in result.screen.splitlines() if line in ("shop", "club", "last")] == ["shop", "club", "last"]
    assert "rk_test_…none, from secrets/club/api_key: Stripe does not accept this API key." in result.text
    assert "rk_test_…gone, from secrets/last/api_key: This API key no longer has access" in result.text
    assert run_recoup("check", "shop", **connected).code == 0


MIXED_UP = """This is a live mode key, but integration 'shop' is in test mode. Use a key that
begins with rk_test_, or connect the account's live mode as another integration:
recoup connect"""


def test_test_and_live_mode_are_never_mixed(connected: dict[str, str], data: Path) -> None:
    """By another key, and by a hand in the file."""
    result = run_recoup("integrations", "set-key", "shop", typed=LIVE, **connected)
    assert (result.code, result.screen) == (1, MIXED_UP)
    assert_key_is_masked(LIVE, result)
    assert (data / "secrets" / "shop" / "api_key").read_text() == f"{GOOD}\n"
    path = data / "integrations.toml"
    path.write_text(path.read_text().replace("livemode = false", "livemode = true"))
    mixed = """This is a test mode key, but integration 'shop' is in live mode. Use a
key that begins with rk_live_, or connect the account's test mode as another
integration: recoup connect"""
    for command in ("check", "sync"):
        result = run_recoup(command, **connected)
        assert result.code == 1
        assert " ".join(mixed.split()) in result.text
    assert not (data / "recovery.duckdb").exists()


@pytest.mark.parametrize(("key", "code"), [(LACKING, 3), (EXPIRED, 1), ("whsec_51QzXwVuKpRmNhGqTb7sign", 1)])
def test_an_insufficient_key_does_not_replace_a_sufficient_one(
    key: str, code: int, connected: dict[str, str], data: Path
) -> None:
    result = run_recoup("integrations", "set-key", "shop", typed=key, **connected)
    assert result.code == code
    assert (data / "secrets" / "shop" / "api_key").read_text() == f"{GOOD}\n"
    assert_key_is_masked(key, result)


def test_a_key_from_the_environment_is_not_replaced_by_a_file(connected: dict[str, str]) -> None:
    variables = connected | {"STRIPE_API_KEYS__SHOP": GOOD}
    result = run_recoup("integrations", "set-key", "shop", typed=SECRET_KEY, **variables)
    assert (result.code, result.screen) == (
        1,
        "The key of 'shop' is set by STRIPE_API_KEYS__SHOP. Change it there.",
    )
    renamed = run_recoup("integrations", "rename", "shop", "store", **variables)
    assert "STRIPE_API_KEYS__STORE" not in renamed.text, "its file has come along"
    (Path(connected["RECOUP_DATA_DIR"]) / "secrets" / "store" / "api_key").unlink()
    again = run_recoup("integrations", "rename", "store", "club", **connected, STRIPE_API_KEYS__STORE=GOOD)
    assert "Its key is in STRIPE_API_KEYS__STORE. Rename that to STRIPE_API_KEYS__CLUB." in again.text


def test_integrations_are_listed_shown_and_removed(
    server: SimulatorServer, connected: dict[str, str], data: Path
) -> None:
    path = data / "integrations.toml"
    path.write_text(path.read_text().replace('description = ""', 'description = "[/] ours"'))
    listed = run_recoup("integrations", "list", **connected, STRIPE_API_KEY=LIVE).screen
    assert [line.split() for line in listed.splitlines()[1:]] == [
        ["default", "not", "yet", "known", "live", "-"],
        ["shop", server.account.id, "test", "-", "[/]", "ours"],
    ]
    shown = run_recoup("integrations", "show", "shop", **connected).screen
    assert [" ".join(line.split()) for line in shown.splitlines()] == [
        "name shop",
        "description [/] ours",
        f"account {server.account.id}",
        "mode test",
        "key rk_test_…good from secrets/shop/api_key",
        "webhook none. To enable it: recoup webhooks enable shop",
        "data through -",
    ]
    assert run_recoup("integrations", "remove", "shop", "--yes", **connected).code == 0
    assert read_saved(data) == NOTHING
    assert "No account is connected." in run_recoup("integrations", "list", **connected).text


def test_webhook_commands_need_a_name_if_there_are_several_integrations(connected: dict[str, str], data: Path) -> None:
    assert "recoup webhooks secret" in run_recoup("webhooks", "enable", **connected).text
    run_recoup("connect", "--name", "club", "--save-anyway", typed=UNKNOWN, **connected)
    several = run_recoup("webhooks", "enable", **connected)
    assert (several.code, several.screen) == (
        1,
        "There are several integrations: shop, club. Pass one as an argument.",
    )
    named = run_recoup("webhooks", "enable", "club", **connected)
    assert "recoup webhooks secret club" in named.text
    assert sorted(path.parent.name for path in data.glob("secrets/*/webhook_token")) == ["club", "shop"]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"STRIPE_API_KEYS": "of all"}, 'error parsing value for field "stripe_api_keys"'),
        ({"RECOUP_SECRETS_DIR": "/nowhere/at/all"}, 'RECOUP_SECRETS_DIR: directory "/nowhere/at/all" does not exist'),
        ({"STRIPE_API_KEYS__SHOP": "pk_test_51Habc"}, "STRIPE_API_KEYS: shop: This is a publishable key"),
    ],
)
def test_invalid_settings_of_several_accounts_are_one_sentence(
    variables: dict[str, str], sentence: str, data: Path
) -> None:
    result = run_recoup("check", RECOUP_DATA_DIR=str(data), **variables)
    assert result.code == 1
    assert sentence in result.text


def test_a_key_that_is_typed_in_a_terminal_is_not_shown(server: SimulatorServer, data: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "RECOUP_"))}
    environment |= {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data), "COLUMNS": "80", "TERM": "dumb"}
    process = subprocess.Popen(
        [*RECOUP, "connect"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    shown = ""
    for question, answer in (
        ("Name, such as", "Shop!"),
        ("Name, such as", VISIBLE),
        ("Name, such as", "shop"),
        ("hidden:", "pk_test_51QzXwVuKpRmNhGqTb7publ"),
        ("hidden:", LACKING),
        ("[y/N]", "n"),
    ):
        shown += read_until(ours, question)
        while question == "hidden:" and termios.tcgetattr(ours)[3] & termios.ECHO:
            time.sleep(0.01)
        os.write(ours, f"{answer}\n".encode())
    shown += read_until(ours, None)
    os.close(ours)
    assert process.wait(30) == 3
    assert "shop" in shown, "what is typed is echoed but for the key"
    assert "A name consists of lowercase letters" in shown
    assert "The name looks like an API key" in shown
    assert shown.count(VISIBLE) == 1, "the terminal echoes it; Recoup does not repeat it"
    assert "Description" not in shown
    assert "This is a publishable key" in shown
    assert LACKING not in shown
    assert_key_is_masked(LACKING, CommandResult(3, shown, ""))
    assert CHARGES_MISSING in shown
    assert read_saved(data) == NOTHING


def read_until(terminal: int, question: str | None) -> str:
    """What is on the terminal up to the question; without one, up to its end."""
    shown = ""
    while question is None or question not in shown:
        try:
            read = os.read(terminal, 4_096).decode(errors="replace")
        except OSError:  # the process has closed it
            read = ""
        if not read:
            assert question is None, shown
            break
        shown += read
    return shown


def test_a_binary_file_in_the_secrets_folder_is_one_sentence(data: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "tls.der").write_bytes(b"\x30\x82\xff\xfe")
    result = run_recoup("check", RECOUP_DATA_DIR=str(data), RECOUP_SECRETS_DIR=str(tmp_path / "secrets"))
    assert result.code == 1
    assert result.text.startswith("Invalid settings (from the environment, .env or RECOUP_SECRETS_DIR):")
    assert result.text.endswith("tls.der is not text, as secrets are")


PLATFORM = "rk_test_51QzXwVuKpRmNhGqTb7plat"
ITSELF_ALONE = "rk_test_51QzXwVuKpRmNhGqTb7self"
NOT_LISTING = "rk_test_51QzXwVuKpRmNhGqTb7unli"
NOT_ENOUGH = "rk_test_51QzXwVuKpRmNhGqTb7some"


@pytest.fixture
def platform() -> Iterator[SimulatorServer]:
    keys = {
        PLATFORM: None,
        ITSELF_ALONE: ApiKey(None),
        NOT_LISTING: ApiKey(NEEDED, NEEDED),
        NOT_ENOUGH: ApiKey(None, ("payment_intent_read", "dispute_read", "event_read")),
    }
    own, *connected = (SimulatedAccount(seed=seed, payments=5, days=5) for seed in (7, 8, 9))
    with SimulatorServer(own, connected=connected, keys=keys) as running:
        yield running


def test_a_platform_is_connected_with_the_accounts_that_match_its_patterns(
    platform: SimulatorServer, data: Path
) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    result = run_recoup("connect", "--name", "market", "--connected", "*", typed=PLATFORM, **variables)
    connected = sorted(platform.gates.keys() - {platform.account.id})
    assert (result.code, " yes  accounts *            Connect    the account's id" in result.screen) == (0, True)
    names = ["market", *(f"market_{account_id.removeprefix('acct_').lower()}" for account_id in connected)]
    assert sorted(read_saved(data)["integrations"]) == names
    assert read_saved(data)["secrets"] == ["secrets/market/api_key"]
    listed = run_recoup("integrations", "list", **variables).out.splitlines()[1:]
    ids = [platform.account.id, *connected]
    assert {tuple(line.split()[:3]) for line in listed} == set(zip(names, ids, ["test"] * 3, strict=True))
    connected_name = run_recoup("integrations", "set-key", names[1], typed=PLATFORM, **variables)
    assert connected_name.text == (
        f"'{names[1]}' is read with the key of its platform: recoup integrations set-key market"
    )
    enabled = run_recoup("webhooks", "enable", **variables)
    assert "Events from: Connected accounts." in enabled.text
    assert f"webhooks enable {names[0]}" in run_recoup("webhooks", "enable", names[1], **variables).text


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (NOT_LISTING, "This key lacks required permissions: rak_connected_account_read."),
        (ITSELF_ALONE, "This API key may not read connected accounts: it has no Connect permissions."),
        (NOT_ENOUGH, "For connected accounts this key lacks rak_charge_read. Add"),
    ],
    ids=["may not list them", "may not read them", "may not read enough of them"],
)
def test_a_key_without_connect_permissions_is_not_saved_for_a_platform(
    key: str, sentence: str, platform: SimulatorServer, data: Path
) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    result = run_recoup("connect", "--name", "market", "--connected", "*", typed=key, **variables)
    assert (result.code, sentence in result.text, read_saved(data)) == (3, True, NOTHING)
    assert run_recoup("connect", "--name", "market", typed=key, **variables).code == 0, (
        "without its accounts it is enough"
    )
    assert_key_is_masked(key, result)


def test_patterns_that_match_no_connected_account_are_not_saved(platform: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    command = ("connect", "--name", "market", "--connected", "nosuch*")
    result = run_recoup(*command, typed=PLATFORM, **variables)
    assert (result.code, "matches 'nosuch*'" in result.text, read_saved(data)) == (1, True, NOTHING)
    assert run_recoup(*command, "--save-anyway", typed=PLATFORM, **variables).code == 0
    assert read_saved(data)["integrations"]["market"]["connected"] == ["nosuch*"]
    assert run_recoup("integrations", "discover", "market", "--connected", "*", **variables).code == 0
    assert read_saved(data)["integrations"]["market"]["connected"] == ["*"]
    assert len(read_saved(data)["integrations"]) == 3


def test_discover_lists_added_accounts_although_one_cannot_be_added(platform: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    taken, free = sorted(platform.gates.keys() - {platform.account.id})
    data.mkdir()
    (data / "integrations.toml").write_text(f'[mine]\naccount_id = "{taken}"\nlivemode = false\n')
    run_recoup("connect", "--name", "market", typed=PLATFORM, **variables)
    result = run_recoup("integrations", "discover", "market", "--connected", "*", **variables)
    assert result.code == 1
    assert re.search(rf"{free}\W.* new$", result.screen, re.M)
    assert f"{taken}: Integration 'mine'" in result.text
    assert f"market_{free.removeprefix('acct_').lower()}" in read_saved(data)["integrations"]


def test_a_key_without_connect_permissions_does_not_replace_one_with_them(
    platform: SimulatorServer, data: Path
) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    run_recoup("connect", "--name", "market", "--connected", "*", typed=PLATFORM, **variables)
    result = run_recoup("integrations", "set-key", "market", typed=ITSELF_ALONE, **variables)
    assert (result.code, "The key was not changed." in result.text) == (3, True)
    nothing_else = run_recoup("integrations", "discover", "market", "--connected", "unmatched", **variables)
    assert (nothing_else.code, "None of the 2 connected accounts has" in nothing_else.text) == (1, True)
    assert read_saved(data)["integrations"]["market"]["connected"] == ["*"]
    connected_name = next(name for name in read_saved(data)["integrations"] if name != "market")
    assert (
        "recoup integrations discover market"
        in run_recoup("integrations", "discover", connected_name, **variables).text
    )
    assert "that of market" in run_recoup("integrations", "show", connected_name, **variables).text


def test_a_key_of_a_connected_account_cannot_be_set_for_another_integration(
    connected: dict[str, str], data: Path
) -> None:
    run_recoup("connect", "--name", "club", "--save-anyway", typed=UNKNOWN, **connected)
    result = run_recoup("integrations", "set-key", "club", typed=SECRET_KEY, **connected)
    assert (result.code, "Integration 'shop' (secrets/shop/api_key) reads this account already." in result.text) == (
        1,
        True,
    )
    assert (data / "secrets" / "club" / "api_key").read_text() == f"{UNKNOWN}\n"


def test_a_key_that_never_worked_can_be_replaced(server: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": f"http://127.0.0.1:{find_free_port()}", "RECOUP_DATA_DIR": str(data)}
    run_recoup("connect", "--name", "shop", "--save-anyway", typed=GOOD, **variables)
    variables["STRIPE_API_BASE"] = server.url
    assert run_recoup("integrations", "set-key", "shop", typed=SECRET_KEY, **variables).code == 0
    assert read_saved(data)["integrations"]["shop"]["account_id"] == server.account.id


def test_a_faulty_integration_does_not_stop_the_others(shops: tuple["Shops", CommandResult], tmp_path: Path) -> None:
    made, _ = shops
    shutil.copytree(made.settings.recoup_data_dir, tmp_path / "data")
    path = tmp_path / "data" / "integrations.toml"
    path.write_text("[again]\n" + path.read_text())
    variables = made.variables | {"RECOUP_DATA_DIR": str(tmp_path / "data"), "STRIPE_API_KEYS__AGAIN": ONE}
    result = run_recoup("sync", **variables)
    assert (result.code, result.err) == (1, "Not synced (see above): again.\n")
    assert "Integration 'one' (secrets/one/api_key) is read with this key already." in result.text
    assert "Failed payments of acct_1Two (test mode)" in result.out


def test_a_rename_names_the_variables_to_rename(connected: dict[str, str]) -> None:
    secret = "whsec_" + "a" * 32
    result = run_recoup("integrations", "rename", "shop", "store", **connected, STRIPE_WEBHOOK_SECRETS__SHOP=secret)
    assert (
        "Its signing secret is in STRIPE_WEBHOOK_SECRETS__SHOP. Rename that to STRIPE_WEBHOOK_SECRETS__STORE."
        in result.text
    )


def test_binary_input_and_no_tty_fail_without_a_traceback(
    server: SimulatorServer, data: Path, tmp_path: Path, holding_secrets: set[Path]
) -> None:
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data)}
    path = tmp_path / "key.txt"
    holding_secrets.add(path)
    path.write_bytes(GOOD.encode("utf-16"))  # as PowerShell writes one
    result = run_recoup("connect", "--name", "shop", "--description", "caf\udce9", "--key-file", str(path), **variables)
    assert (result.code, read_saved(data)["integrations"]["shop"]["description"]) == (0, "caf?")
    assert run_recoup("connect", typed=GOOD, **variables).err == "The integration needs a name: --name shop_eu\n"
    long = run_recoup("connect", "--name", "a" * 40, "--connected", "*", typed=GOOD, **variables)
    assert long.text.startswith("The name of a platform must have at most 36 characters")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *RECOUP, "connect", "--name", "club"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (closed.returncode, closed.stderr.partition(".")[0]) == (1, "Nothing was pasted")


def test_a_new_integration_does_not_inherit_secrets_of_an_old_one_with_its_name(
    server: SimulatorServer, connected: dict[str, str], data: Path
) -> None:
    run_recoup("webhooks", "enable", "shop", **connected)
    token = (data / "secrets" / "shop" / "webhook_token").read_text()
    (data / "integrations.toml").write_text("")
    assert run_recoup("connect", "--name", "shop", typed=GOOD, **connected).code == 0
    assert read_saved(data)["secrets"] == ["secrets/shop/api_key"]
    assert token not in run_recoup("webhooks", "enable", "shop", **connected).out


def test_the_plan_estimates_each_account(shops: tuple["Shops", CommandResult]) -> None:
    made, _ = shops
    made.second.keys.put(TWO, ApiKey(state="expired"))
    result = run_recoup("sync", "--plan", **made.variables)
    made.second.keys.put(TWO, ApiKey(None))
    assert (result.code, result.err) == (1, "Not estimated (see above): two.\n")
    assert result.screen.splitlines()[0].startswith("two: This API key has expired or was rolled")
    assert re.search(r"^ one +\d+ +\d+ +0:00:01 *$", result.out, re.MULTILINE)


ONE, TWO = "rk_test_51QzXwVuKpRmNhGqTb7ones", "rk_test_51QzXwVuKpRmNhGqTb7twos"
MARTS = ("recovery_episodes", "payment_attempts", "card_retry_budgets", "payment_intents", "recovery_cohorts")


class Shops:
    """Two accounts whose payments, customers and cards have the same ids, behind one address, in one data folder."""

    def __init__(self, folder: Path, first: SimulatorServer, second: SimulatorServer, url: str) -> None:
        self.first, self.second = first, second
        self.variables = {"STRIPE_API_BASE": url, "RECOUP_DATA_DIR": str(folder)}
        self.settings = Settings(recoup_data_dir=folder, stripe_api_base=url)

    def connect(self, name: str, key: str) -> None:
        assert run_recoup("connect", "--name", name, typed=key, **self.variables).code == 0

    def rows(self, mart: str, account_id: str) -> list[tuple[Any, ...]]:
        """An account's rows, without what says whose they are and when they were loaded."""
        with closing(duckdb.connect(str(self.settings.published_path), read_only=True)) as connection:
            columns = [name for name, *_ in connection.execute(f"DESCRIBE marts.{mart}").fetchall()]
            chosen = ", ".join(name for name in columns if name != "account_id" and not name.startswith("_"))
            sql = f"SELECT {chosen} FROM marts.{mart} WHERE account_id = ? ORDER BY ALL"
            return connection.execute(sql, [account_id]).fetchall()

    def marts(self, account_id: str) -> dict[str, list[tuple[Any, ...]]]:
        return {mart: self.rows(mart, account_id) for mart in MARTS}


def twin(key: str, account_id: str) -> SimulatorServer:
    account = SimulatedAccount(seed=34, payments=150, days=40)
    account.id = account_id
    return SimulatorServer(account, keys={key: None})


@pytest.fixture(scope="module")
def shops(built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shops, CommandResult]]:
    """Both are connected, and synced by one command while the key of the second has expired; what it said."""
    with twin(ONE, "acct_1One") as first, twin(TWO, "acct_1Two") as second, StripeRouter(first, second) as stripe:
        made = Shops(built_folder.copy(tmp_path_factory.mktemp("shops")), first, second, stripe.url)
        made.connect("one", ONE)
        made.connect("two", TWO)
        second.keys.put(TWO, ApiKey(state="expired"))
        result = run_recoup("sync", **made.variables)
        second.keys.put(TWO, ApiKey(None))
        yield made, result


@pytest.fixture
def both(shops: tuple[Shops, CommandResult], tmp_path: Path) -> Shops:
    """The same in a folder of the test's own; the second key works again."""
    made, _ = shops
    shutil.copytree(made.settings.recoup_data_dir, tmp_path / "data")
    return Shops(tmp_path / "data", made.first, made.second, made.variables["STRIPE_API_BASE"])


def test_a_failing_account_does_not_stop_the_other(shops: tuple[Shops, CommandResult]) -> None:
    made, result = shops
    assert (result.code, result.err) == (1, "Not synced (see above): two.\n")
    assert "two\nReading from Stripe\n  This API key has expired or was rolled" in result.screen
    assert "Failed payments of acct_1One (test mode)" in result.out
    assert all(made.marts("acct_1One").values())
    assert not any(made.marts("acct_1Two").values())


def test_two_accounts_whose_customers_and_cards_collide_never_mix(both: Shops) -> None:
    alone = both.marts("acct_1One")
    result = run_recoup("sync", **both.variables)
    assert result.code == 0
    assert [line for line in result.out.splitlines() if line in ("one", "two")] == ["one", "two"]
    for account in ("acct_1One", "acct_1Two"):
        assert f"Failed payments of {account} (test mode)" in result.out
        assert both.marts(account) == alone


def test_a_new_key_of_the_same_account_does_not_read_everything_again(both: Shops, data: Path) -> None:
    rolled = "rk_test_51QzXwVuKpRmNhGqTb7next"
    both.first.keys.put(rolled, ApiKey(None))
    pipeline.extract(both.settings, integration="one")
    result = run_recoup("integrations", "set-key", "one", typed=rolled, **both.variables)
    assert (result.code, result.out.splitlines()[-1]) == (0, "one now uses this key.")
    both.first.keys.remove(ONE)
    try:
        both.first.requests.clear()
        assert pipeline.extract(both.settings, integration="one").written == 0
        assert both.first.requests.total == 3, "as every sync in which nothing has changed"
    finally:
        both.first.keys.put(ONE, ApiKey(None))
    wrong = run_recoup("integrations", "set-key", "one", typed=TWO, **both.variables)
    assert (wrong.code, wrong.text.startswith("This API key belongs to acct_1Two, and not to acct_1One")) == (1, True)


def test_the_account_id_of_a_hand_written_integration_is_looked_up_and_kept(
    server: SimulatorServer, connected: dict[str, str], data: Path
) -> None:
    path = data / "integrations.toml"
    path.write_text("[shop]\n")
    settings = Settings(stripe_api_base=server.url, recoup_data_dir=data)
    assert pipeline.extract(settings, integration="shop").account.account_id == server.account.id
    assert f'account_id = "{server.account.id}"' in path.read_text()
    path.write_text(path.read_text() + "[again]\n")
    twice = settings.model_copy(update={"stripe_api_keys": {"again": SecretStr(SECRET_KEY)}})
    with pytest.raises(IntegrationError, match="reads this account already"):
        pipeline.extract(twice, integration="again")


def test_an_unreadable_key_file_affects_only_its_integration(connected: dict[str, str], data: Path) -> None:
    key_file = data / "secrets" / "shop" / "api_key"
    key_file.unlink()
    key_file.mkdir()
    assert "shop" in run_recoup("integrations", "list", **connected).screen
    assert (
        "The key of integration 'shop' cannot be read (secrets/shop/api_key)" in run_recoup("check", **connected).text
    )
