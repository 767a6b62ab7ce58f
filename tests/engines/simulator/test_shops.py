"""Kinds of shop, served over HTTP and by the command."""

import subprocess
import sys
from collections import Counter

import pytest
import requests

from orchestration.simulator import SimulatedAccount, SimulatorServer, WebhookEndpoint
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.calibration import DAY
from tests.engines.simulator.conftest import Receiver, settled


def server_key(server: SimulatorServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {next(iter(server.keys.known()))}"}


def test_customer_accounts_can_be_used_as_a_filter() -> None:
    account = SimulatedAccount(1, 1_000, 150, shop="accounts_v2")
    renderer = Renderer(account)
    entries = account.list_entries("payment_intents", account.now, created=(0, account.now))
    bodies = [renderer.render("payment_intents", entry, account.now) for entry in entries]
    assert {body["customer"] for body in bodies} == {None}
    assert all(body["customer_account"].startswith("acct_") for body in bodies)
    wanted = Counter(body["customer_account"] for body in bodies).most_common(1)[0]
    with SimulatorServer(account) as server:
        found = requests.get(
            f"{server.url}/v1/payment_intents",
            params={"customer_account": wanted[0], "limit": 100},
            headers=server_key(server),
            timeout=10,
        ).json()
    assert len(found["data"]) == wanted[1]


@pytest.mark.parametrize("shop", ["vouchers", "adaptive_acceptance"])
def test_webhooks_of_a_shop_are_its_events(shop: str, receiver: Receiver) -> None:
    account = SimulatedAccount(1, 600, 60, shop=shop)
    start = account.now
    with SimulatorServer(account) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url, enabled_events=("*",)))
        account.now += 3 * DAY
        settled(server, endpoint)
    happened = account.events_between(start, account.now)
    assert len(happened) > 30
    assert Counter(receiver.ids) == Counter(event.id for event in happened)


def test_the_process_serves_the_kind_of_its_option() -> None:
    options = ["--shop=terminal", "--payments=50", "--days=20", "--port=0", "--until-eof"]
    command = [sys.executable, "-m", "orchestration.simulator", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert process.stdin is not None
        process.stdin.close()
    assert line.startswith(SimulatedAccount(1, 50, 20, shop="terminal").id)
