"""The published recovery rates of each kind of shop against the truth: a smaller `python -m tests.bench.shops`.

`pytest -s` prints the table; so does a failure. Accounts are small: a limit in per cent allows for two payments (one
for the strict rate, the two largest debts for amounts). See `Comparison.violations`.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestration.cli.demo import KINDS
from orchestration.simulator import DEFAULT_ENABLED_EVENTS, SimulatedAccount, SimulatorServer
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.account import API_VERSION, EVENT_RETENTION
from orchestration.warehouse.checkpoints import AccountKey
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import event_row
from tests.bench.shops import Comparison, compare_shops, format_table, make_settings
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder

PAYMENTS, DAYS = 600, 180


def read_by_webhooks(
    seed: int, shop: str | None, parameters: Mapping[str, Any] | None, folder: Path
) -> SimulatedAccount:
    """Load the events that Stripe no longer lists as webhooks brought them, then sync once.

    A sync costs more CPU time than all these events.
    """
    account = SimulatedAccount(seed, PAYMENTS, DAYS, shop=shop, shop_parameters=parameters)
    renderer, now = Renderer(account), account.now
    listed = account.list_entries("events", now, created=(0, now - EVENT_RETENTION))
    events = [renderer.render("events", entry, now) for entry in listed if entry.event_type in DEFAULT_ENABLED_EVENTS]
    with open_warehouse(make_settings(folder).warehouse_path) as warehouse, transaction(warehouse):
        Loader(warehouse, AccountKey(account.id, account.livemode), API_VERSION).load_events(
            [event_row(event, "webhook") for event in events]
        )
    with SimulatorServer(account) as server:
        pipeline.extract(make_settings(folder, server.url))
    return account


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_published_rates_equal_the_truth_in_each_kind_of_shop(
    seed: int, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    """Compare failed payments, linked and strict rates, and amounts at risk, recovered and received."""
    compared = compare_shops(KINDS, [seed], read_by_webhooks, built_folder.copy(tmp_path))
    shown = show(compared)
    print(shown)
    assert [each.name for each in compared if each.true.failed < 20] == [], "too few failed payments to compare"
    wrong = [f"{each.name}: {violation}" for each in compared for violation in each.violations()]
    assert wrong == [], shown


def show(compared: Sequence[Comparison]) -> str:
    """Return the table as text."""
    text = io.StringIO()
    Console(file=text, width=120, highlight=False).print(format_table(compared))
    return text.getvalue()
