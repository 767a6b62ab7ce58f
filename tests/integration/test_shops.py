"""Each kind of shop over HTTP: what a sync stores equals the account, by lists and by events."""

import duckdb
import orjson
import pytest

from orchestration.simulator import PERSONAL_MARKERS, SHOPS, SimulatedAccount, SimulatorServer
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.calibration import DAY
from orchestration.sync.streams import EVENT_RETENTION_SECONDS, OBJECT_STREAMS
from orchestration.warehouse.rows import OBJECT_TABLES
from tests.conftest import MakeSettings
from tests.support import pipeline

SHOWN = {
    "payment_intents": (
        "status", "amount", "currency", "amount_received", "canceled_at", "latest_charge", "customer",
        "customer_account", "metadata", "payment_details", "created", "payment_method_types",
    ),
    "charges": (
        "status", "amount", "currency", "amount_captured", "amount_refunded", "failure_code", "outcome", "customer",
        "payment_intent", "created",
    ),
    "refunds": ("status", "amount", "charge"),
    "disputes": ("status", "amount", "charge", "reason"),
}  # fmt: skip
"""Fields that a sync stores unchanged."""

PERSONAL_METADATA = ("customer_email", "customer_name", "phone")


@pytest.mark.parametrize("shop", SHOPS)
def test_the_raw_tables_equal_the_account(shop: str, make_settings: MakeSettings) -> None:
    """Compare after a first sync and after another one ten days later."""
    account = SimulatedAccount(1, 150, 40, shop=shop, tie_order="shuffled")
    first_sync = account.now
    with SimulatorServer(account) as server:
        settings = make_settings(server)
        for pause in (0, 10 * DAY):
            account.now += pause
            assert pipeline.extract(settings).missing == {}
            assert stored_differently(account, str(settings.warehouse_path)) == []
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        events = {event_id for (event_id,) in connection.execute("SELECT id FROM raw_stripe.events").fetchall()}
        text = orjson.dumps(connection.execute("SELECT payload FROM raw_stripe.payment_intents").fetchall()).decode()
        text += orjson.dumps(connection.execute("SELECT payload FROM raw_stripe.charges").fetchall()).decode()
    wanted = {event_type for stream in OBJECT_STREAMS for event_type in stream.event_types}
    happened = account.events_between(first_sync - EVENT_RETENTION_SECONDS - 1, account.now)
    assert {entry.id for entry in happened if entry.event_type in wanted} == events
    assert [marker for marker in PERSONAL_MARKERS if marker in text] == []


def stored_differently(account: SimulatedAccount, warehouse: str) -> list[str]:
    """Return the objects that the warehouse lacks or stores differently from what the account shows now."""
    renderer, at = Renderer(account), account.now
    wrong = []
    with duckdb.connect(warehouse, read_only=True) as connection:
        for table in OBJECT_TABLES:
            shown = {
                entry.id: renderer.render(table, entry, at)
                for entry in account.list_entries(table, at, created=(0, at))
            }
            rows = connection.execute(f"SELECT id, payload FROM raw_stripe.{table}").fetchall()
            stored = {object_id: orjson.loads(payload) for object_id, payload in rows}
            wrong += [f"{table}: {each}" for each in shown.keys() ^ stored.keys()]
            wrong += [
                f"{table}: {key} of {each} is {stored[each].get(key)}, not {shown[each][key]}"
                for each in shown.keys() & stored.keys()
                for key in SHOWN[table]
                if table in SHOWN and _kept(stored[each].get(key)) != _kept(shown[each].get(key))
            ]
    return wrong


def _kept(value: object) -> object:
    """Return an object without its empty fields and personal data, which a sync does not store."""
    if isinstance(value, dict):
        items = ((key, _kept(each)) for key, each in value.items() if key not in PERSONAL_METADATA)
        return {key: kept for key, kept in items if kept is not None} or None
    return value
