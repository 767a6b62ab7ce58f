"""The accounts that an endpoint may write, from the signed request to the marts."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests
from pydantic import SecretStr

from orchestration.accounts.registry import Integration
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_integrations, make_webhook_endpoints
from orchestration.web.app import receiver
from orchestration.webhooks import ingest
from orchestration.webhooks.queue import Queue, days_ago
from tests.engines.webhooks.conftest import make_event
from tests.engines.webhooks.test_receiver import serving, signed
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder

SECRETS = {"shop": "whsec_" + "s" * 32, "shop_a": "whsec_" + "a" * 32, "other": "whsec_" + "o" * 32}
"""A Connect platform, its one chosen connected account, and an unrelated account."""


@dataclass(frozen=True)
class Endpoints:
    settings: Settings
    url: str
    tokens: dict[str, str]

    def send(self, integration: str, event: dict[str, Any]) -> None:
        body = json.dumps(event).encode()
        header = {"Stripe-Signature": signed(body, SECRETS[integration])}
        address = f"{self.url}/webhooks/stripe/{self.tokens[integration]}"
        answer = requests.post(address, data=body, headers=header, timeout=20)
        assert (answer.status_code, answer.json()) == (200, {"received": True, "stored": 1})

    def publish(self) -> list[tuple[Any, ...]]:
        """Load and build; return the payments of the marts."""
        pipeline.ingest(self.settings)
        pipeline.build(self.settings)
        with duckdb.connect(str(self.settings.warehouse_path), read_only=True) as warehouse:
            return warehouse.execute(
                "SELECT account_id, livemode, payment_intent_id, amount FROM marts.payment_intents ORDER BY ALL"
            ).fetchall()

    def count_ignored(self) -> dict[str, int]:
        with closing(Queue(self.settings.queue_url)) as queue:
            return queue.ignored(since=days_ago(1))


@pytest.fixture
def endpoints(built_folder: BuiltFolder, tmp_path: Path, holding_secrets: set[Path]) -> Iterator[Endpoints]:
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path / "data"))
    holding_secrets.add(settings.secrets_dir)
    integrations = make_integrations(settings)
    integrations.add(Integration("shop", SecretStr("rk_test_" + "s" * 24), "", account_id="acct_own", livemode=False))
    integrations.add(Integration("shop_a", None, "", account_id="acct_a", livemode=False, platform="shop"))
    integrations.add(Integration("other", SecretStr("rk_live_" + "o" * 24), "", account_id="acct_other", livemode=True))
    tokens = {}
    for name, secret in SECRETS.items():
        files = make_webhook_endpoints(settings).files(name)
        tokens[name] = files.enable().token.get_secret_value()
        files.set_secret(secret)
    with serving(receiver(settings)) as url:
        yield Endpoints(settings, url, tokens)


def of_amount(event: dict[str, Any], amount: int, **changes: Any) -> dict[str, Any]:
    return event | {"data": {"object": event["data"]["object"] | {"amount": amount} | changes}}


def test_an_endpoint_writes_only_its_own_and_the_chosen_accounts(
    endpoints: Endpoints, caplog: pytest.LogCaptureFixture
) -> None:
    endpoints.send("shop", make_event(1))
    endpoints.send("shop", make_event(2, account="acct_own"))
    endpoints.send("shop", make_event(3, account="acct_a"))
    endpoints.send("shop_a", make_event(4))
    endpoints.send("shop_a", make_event(5, account="acct_a"))
    endpoints.send("other", make_event(6, livemode=True))
    for number, (integration, account) in enumerate(
        [("shop", "acct_b"), ("shop", "acct_other"), ("shop_a", "acct_own"), ("other", "acct_own"), ("other", "acct_a")]
    ):
        endpoints.send(integration, make_event(10 + number, account=account))
        endpoints.send(integration, make_event(30 + number, account=account, livemode=True))
    caplog.set_level(logging.WARNING, ingest.__name__)
    ingest._logged.clear()
    assert endpoints.publish() == [
        ("acct_a", False, "pi_3", 500),
        ("acct_a", False, "pi_4", 500),
        ("acct_a", False, "pi_5", 500),
        ("acct_other", True, "pi_6", 500),
        ("acct_own", False, "pi_1", 500),
        ("acct_own", False, "pi_2", 500),
    ]
    assert endpoints.count_ignored() == {"other_account": 10}
    endpoints.send("shop", make_event(99, account="acct_b"))
    endpoints.publish()
    messages = [record.getMessage() for record in caplog.records if record.name == ingest.__name__]
    assert len(messages) == 10, "each account of each endpoint is logged once"


def test_events_of_the_other_mode_are_ignored(endpoints: Endpoints) -> None:
    endpoints.send("shop", make_event(1, livemode=True))
    endpoints.send("shop", make_event(2, livemode=True, account="acct_a"))
    endpoints.send("other", make_event(3))
    assert endpoints.publish() == []
    assert endpoints.count_ignored() == {"other_account": 3}


def test_accounts_never_overwrite_each_other_even_with_equal_ids(endpoints: Endpoints) -> None:
    endpoints.send("shop", make_event(1))
    endpoints.publish()
    later = make_event(2, account="acct_own", created=1_767_300_000, livemode=False)
    endpoints.send("other", of_amount(later, 9_999, id="pi_1"))
    assert endpoints.publish() == [("acct_own", False, "pi_1", 500)]
    endpoints.send("shop", of_amount(make_event(3, account="acct_a"), 700, id="pi_1"))
    assert endpoints.publish() == [("acct_a", False, "pi_1", 700), ("acct_own", False, "pi_1", 500)]


@pytest.mark.parametrize("created", [1_767_225_599, 1_767_225_601, 1_400_000_000, 1_790_000_000])
def test_an_object_with_a_changed_creation_time_updates_its_row(created: int, endpoints: Endpoints) -> None:
    endpoints.send("shop", make_event(1))
    endpoints.publish()
    later = make_event(2, created=1_767_300_000)
    endpoints.send("shop", of_amount(later, 800, id="pi_1", created=created))
    assert endpoints.publish() == [("acct_own", False, "pi_1", 800)]
    endpoints.send("shop", of_amount(make_event(3, created=1_767_300_001), 900, id="pi_1"))
    endpoints.send("shop", make_event(3, id="evt_1", created=1_400_000_000))
    assert endpoints.publish() == [("acct_own", False, "pi_1", 900)]
    with duckdb.connect(str(endpoints.settings.warehouse_path), read_only=True) as warehouse:
        (row,) = warehouse.execute("SELECT id, epoch(created)::BIGINT FROM raw_stripe.payment_intents").fetchall()
        events = warehouse.execute("SELECT count(*), count(DISTINCT id) FROM raw_stripe.events").fetchone()
    assert row == ("pi_1", min(created, 1_767_225_600))
    assert events == (3, 3)


@pytest.mark.parametrize("of", ["event", "object"])
def test_future_dated_events_go_to_quarantine_and_overwrite_nothing(of: str, endpoints: Endpoints) -> None:
    """Check that clocks may differ by two days. A simulated account has its own time, so any date is accepted."""
    now = int(time.time())
    endpoints.send("shop", make_event(1, created=now))
    ahead = now + 3 * 86_400
    future = of_amount(make_event(2, created=ahead if of == "event" else now), 700, id="pi_1")
    endpoints.send("shop", future if of == "event" else of_amount(future, 700, created=ahead))
    endpoints.send("shop", of_amount(make_event(3, created=now + 1), 900, id="pi_1"))
    assert endpoints.publish() == [("acct_own", False, "pi_1", 900)]
    with closing(Queue(endpoints.settings.queue_url)) as queue:
        ((event_id, _, reason),) = queue.quarantine(9)
    assert (event_id, reason) == ("evt_2", "The event is dated in the future.")


def test_queued_events_are_loaded_after_a_rename(endpoints: Endpoints) -> None:
    endpoints.send("shop", make_event(1))
    endpoints.send("shop", make_event(2, account="acct_a"))
    endpoints.send("shop", make_event(3, account="acct_b"))
    make_integrations(endpoints.settings).rename("shop", "store")
    assert endpoints.publish() == [("acct_a", False, "pi_2", 500), ("acct_own", False, "pi_1", 500)]


@pytest.mark.parametrize("prefix", ["evt", "pi", "ch", "cus"])
def test_a_dashboard_test_event_reaches_no_table(prefix: str, endpoints: Endpoints) -> None:
    event = make_event(1) if prefix != "evt" else make_event(1, id="evt_00000000000000")
    if prefix != "evt":
        event = of_amount(event, 2_000, id=f"{prefix}_00000000000000")
    body = json.dumps(event).encode()
    header = {"Stripe-Signature": signed(body, SECRETS["shop"])}
    address = f"{endpoints.url}/webhooks/stripe/{endpoints.tokens['shop']}"
    answer = requests.post(address, data=body, headers=header, timeout=20)
    assert (answer.status_code, answer.json()) == (200, {"received": True, "stored": 0})
    endpoints.send("shop", make_event(2))
    assert endpoints.publish() == [("acct_own", False, "pi_2", 500)]
    with duckdb.connect(str(endpoints.settings.warehouse_path), read_only=True) as warehouse:
        for table, column in (("events", "id"), ("payment_intents", "id"), ("webhook_events", "event_id")):
            found = warehouse.execute(f"SELECT {column} FROM raw_stripe.{table}").fetchall()
            assert len(found) == 1
            assert "000000" not in found[0][0]
