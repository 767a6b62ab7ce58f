"""Payments in `requires_action`: which customers went away, and which payments wait for money or a verification."""

from pathlib import Path
from typing import Any, Final

import duckdb
import pytest

from orchestration.base.account import AccountKey
from orchestration.config.settings import Settings
from orchestration.simulator import SimulatedAccount, SimulatorServer
from orchestration.simulator.world.calibration import DAY
from orchestration.stripe_api import API_VERSION
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import event_row, object_row
from tests.conftest import MakeSettings
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.truth import find_waiting_differences

NOW: Final = 1_780_000_000
ASKED: Final = NOW - 2 * DAY
LATER: Final = NOW + DAY
ACCOUNT: Final = AccountKey("acct_1", False)
TRANSFER: Final = "display_bank_transfer_instructions"
QR_CODE: Final = {"expires_at": LATER, "image_url_png": "https://qr.stripe.com/x.png"}

Verdict = tuple[str, int | None, bool]
"""What a payment waits for, until when, and whether that time is over."""

CASES: Final[dict[str, tuple[str | None, Any, list[str], Verdict | None]]] = {
    "redirect": ("redirect_to_url", {"url": "https://hooks.stripe.com/x"}, ["card"], None),
    "sdk": ("use_stripe_sdk", {"type": "three_d_secure_redirect", "expires_at": LATER}, ["card"], None),
    "alipay": ("alipay_handle_redirect", {"native_url": "https://x"}, ["alipay"], None),
    "cashapp": ("cashapp_handle_redirect_or_display_qr_code", {"qr_code": QR_CODE}, ["cashapp"], None),
    "swish": ("swish_handle_redirect_or_display_qr_code", {"qr_code": QR_CODE}, ["swish"], None),
    "upi": ("upi_handle_redirect_or_display_qr_code", {"qr_code": QR_CODE}, ["upi"], None),
    "klarna": ("klarna_display_qr_code", QR_CODE, ["klarna"], None),
    "blik": ("blik_authorize", {}, ["blik"], None),
    "wechat_android": ("wechat_pay_redirect_to_android_app", {"app_id": "x"}, ["wechat_pay"], None),
    "wechat_ios": ("wechat_pay_redirect_to_ios_app", {"native_url": "https://x"}, ["wechat_pay"], None),
    "no_action": (None, None, ["card"], None),
    "unknown": ("do_something_new", {"expires_at": LATER}, ["card", "new_method"], None),
    "boleto": ("boleto_display_details", {"expires_at": LATER}, ["card", "boleto"], ("voucher", LATER, False)),
    "konbini": ("konbini_display_details", {"expires_at": NOW}, ["konbini"], ("voucher", NOW, True)),
    "oxxo": ("oxxo_display_details", {"expires_after": NOW + 1}, ["oxxo"], ("voucher", NOW + 1, False)),
    "multibanco": ("multibanco_display_details", {"expires_at": NOW - 9}, ["multibanco"], ("voucher", NOW - 9, True)),
    "pix": ("pix_display_qr_code", QR_CODE, ["pix"], ("qr_code", LATER, False)),
    "paynow": ("paynow_display_qr_code", {"data": "x"}, ["paynow"], ("qr_code", None, False)),
    "promptpay": ("promptpay_display_qr_code", {"data": "x"}, ["promptpay"], ("qr_code", None, False)),
    "wechat": ("wechat_pay_display_qr_code", {"data": "x"}, ["wechat_pay"], ("qr_code", None, False)),
    "deposits": (
        "verify_with_microdeposits",
        {"arrival_date": NOW - DAY, "microdeposit_type": "descriptor_code"},
        ["us_bank_account"],
        ("microdeposits", None, False),
    ),
    "notified": (
        "card_await_notification",
        {"charge_attempt_at": LATER, "customer_approval_required": True},
        ["card"],
        ("bank_notification", LATER, False),
    ),
    "transfer": (
        TRANSFER,
        {"amount_remaining": 1, "reference": "X1", "hosted_instructions_url": "https://payments.stripe.com/x"},
        ["customer_balance"],
        ("bank_transfer", None, False),
    ),
    "transfer_with_expiry": (
        TRANSFER,
        {"expires_at": NOW - DAY},
        ["customer_balance"],
        ("bank_transfer", None, False),
    ),
    "transfer_not_shown": (None, None, ["customer_balance"], ("bank_transfer", None, False)),
    "new_voucher": ("do_something_new", {"expires_at": LATER}, ["oxxo", "boleto"], ("voucher", None, False)),
    "malformed": ("boleto_display_details", {"expires_at": "soon"}, ["boleto"], ("voucher", None, False)),
    "malformed_details": ("boleto_display_details", ["x"], ["boleto"], ("voucher", None, False)),
}
"""By name: the type and details of the next action, the payment method types, and the expected row. None: abandoned."""


def intent(name: str) -> dict[str, Any]:
    kind, details, types, _ = CASES[name]
    return {
        "object": "payment_intent",
        "id": f"pi_{name}",
        "created": ASKED,
        "amount": 5_000,
        "amount_received": 0,
        "currency": "eur",
        "status": "requires_action",
        "customer": f"cus_{name}",
        "client_secret": f"pi_{name}_secret_x",
        "next_action": kind and {"type": kind, kind: details},
        "payment_method_types": types,
    }


def asked(name: str) -> dict[str, Any]:
    return {
        "object": "event",
        "id": f"evt_{name}",
        "created": ASKED,
        "type": "payment_intent.requires_action",
        "api_version": API_VERSION,
        "data": {"object": intent(name)},
    }


def load(settings: Settings, source: str) -> None:
    """Load each case as a list or its webhook event shows it. The streams are complete to `NOW`."""
    with open_warehouse(settings.warehouse_path) as connection, transaction(connection):
        loader = Loader(connection, ACCOUNT, API_VERSION)
        if source == "webhook":
            loader.load_events([event_row(asked(name), "webhook") for name in CASES])
        else:
            rows = [
                object_row(intent(name), as_of=NOW, read_no_later_than=NOW, api_version=API_VERSION, source="list")
                for name in CASES
            ]
            loader.load_objects("payment_intents", rows)
        connection.execute(
            """INSERT INTO sync.streams (account_id, livemode, stream, complete_through, updated_at, _updated_at)
               SELECT 'acct_1', false, unnest(?), now, now, now
               FROM (SELECT make_timestamp(? * 1000000::BIGINT) AS now)""",
            [["payment_intents", "charges", "payment_intent_events", "charge_events"], NOW],
        )


@pytest.mark.parametrize("source", ["list", "webhook"])
def test_only_customers_asked_to_authenticate_can_abandon_authentication(
    source: str, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path / "data"))
    load(settings, source)
    pipeline.build(settings)
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as warehouse:
        waiting = warehouse.execute(
            """SELECT payment_intent_id[4:], waiting_for, epoch(waits_until_at)::BIGINT, is_expired,
                      epoch(waiting_since_at)::BIGINT, is_waiting_since_at_estimated, next_action_type, has_failed
               FROM marts.waiting_payments"""
        ).fetchall()
        abandoned = warehouse.execute(
            "SELECT payment_intent_id[4:], next_action_type FROM marts.abandoned_authentications"
        ).fetchall()
        arrivals = warehouse.execute(
            """SELECT payment_intent_id, epoch(deposits_arrive_at)::BIGINT FROM marts.waiting_payments
               WHERE deposits_arrive_at IS NOT NULL"""
        ).fetchall()
    verdicts = {name: verdict for name, (*_, verdict) in CASES.items()}
    assert {name: (what, until, is_over) for name, what, until, is_over, *_ in waiting} == {
        name: verdict for name, verdict in verdicts.items() if verdict
    }
    assert {name: rest for name, _, _, _, *rest in waiting} == {
        name: [ASKED, source == "list", CASES[name][0], False] for name, verdict in verdicts.items() if verdict
    }
    assert dict(abandoned) == {name: CASES[name][0] for name, verdict in verdicts.items() if not verdict}
    assert arrivals == [("pi_deposits", NOW - DAY)]


@pytest.mark.parametrize("shop", ["vouchers", "bank_transfers"])
def test_waiting_payments_equal_the_truth(shop: str, make_settings: MakeSettings, tmp_path: Path) -> None:
    """Compare after each of three syncs. No address, reference or secret shown to the customers may be stored."""
    account = SimulatedAccount(2, 400, 60, shop=shop, tie_order="shuffled")
    syncs: list[int] = []
    with SimulatorServer(account) as server:
        settings = make_settings(server, built=True)
        for pause in (0, 2 * DAY + 11, 9 * DAY):
            account.now += pause
            syncs.append(account.now)
            pipeline.extract(settings)
            pipeline.build(settings)
            pipeline.publish_marts(settings)
            assert find_waiting_differences(account, settings, syncs) == []
    with duckdb.connect(str(settings.published_path), read_only=True) as published:
        waiting, abandoned, types = published.execute(
            """SELECT count(*), (SELECT count(*) FROM marts.abandoned_authentications), list(DISTINCT waiting_for)
               FROM marts.waiting_payments"""
        ).fetchall()[0]
    assert waiting > 3
    assert abandoned == 0, "no customer of these shops has a card that requires 3-D Secure"
    assert types == [{"vouchers": "voucher", "bank_transfers": "bank_transfer"}[shop]]
    secrets = ("hosted_voucher_url", "hosted_instructions_url", "payments.stripe.com", "_secret_", "payment_code")
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as warehouse:
        warehouse.execute(f"EXPORT DATABASE '{tmp_path / 'exported'}' (FORMAT csv)")
    stored = b"".join(path.read_bytes() for path in (tmp_path / "exported").glob("*.csv"))
    assert b"next_action" in stored
    assert [secret for secret in secrets if secret.encode() in stored] == []
