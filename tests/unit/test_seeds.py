"""The dbt seeds of codes, compared with Stripe's SDK and the simulated account."""

import csv
import re
import typing
from pathlib import Path

import pytest
import stripe

from orchestration.pipeline.dbt_runner import DBT_PROJECT_DIR
from orchestration.simulator.world import calibration

OUT_OF_SCOPE = {
    "the request was refused, no payment was tried": (
        r"account_(country|error|information|invalid|token)\w*|action_blocked|anomalous_money_movement_request|api_key_.*|"
        r"approval_required|capability_not_active|country_.*|email_invalid|idempotency_key_in_use|intent_.*|"
        r"invalid_characters|invalid_source_usage|livemode_mismatch|lock_timeout|missing|not_allowed_on_.*|parameter.*|"
        r"payment_intent_(invalid_parameter|rate_limit_exceeded|unexpected_state)|platform_.*|rate_limit|request_blocked|"
        r"payment_method_(invalid_parameter\w*|unexpected_state|unsupported_type)|resource_.*|secret_key_required|"
        r"sepa_unsupported_account|status_transition_invalid|storer_.*|testmode_charges_only|tls_.*|token_.*|url_invalid"
    ),
    "methods that are set up, not charged": (
        r"acss_debit_session_incomplete|bank_account_(bad|exists|unverified|verification)\w*|invalid_mandate_.*|"
        r"payment_method_(bank_account_already|configuration|microdeposit_(processing|verification_(amounts|descr)))\w*|"
        r"setup_.*"
    ),
    "captures, refunds and disputes": (
        r"capture_.*|charge_(already|disputed|expired|invalid|not)\w*|dispute_.*|refund_.*|return_.*|smart_disputes_.*"
    ),
    "billing, tax and orders": (
        r"coupon_.*|customer_.*|failed_tax_.*|invalid_(canceled_subscription_fields|tax_location)|invoice_.*|out_of_.*|"
        r"product_.*|service_.*|shipping_.*|siret_.*|sku_.*|state_.*|stripe_tax_.*|subscription_.*|tax.*"
    ),
    "balances, payouts and connected accounts": (
        r"application_fees_.*|balance_.*|clearing_.*|financial_account_.*|instant_payouts_.*|invalid_card_type|"
        r"ownership_.*|payouts?_.*|progressive_.*|transfers?_.*"
    ),
    "other products": r"cardholder_.*|financial_connections_.*|forwarding_.*|payment_evaluation_.*|terminal_.*",
    "discontinued by Stripe": r"(alipay|bitcoin)_upgrade_required",
    "Stripe publishes no meaning": r"three_d_secure_authentication_.*",
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with open(DBT_PROJECT_DIR / "seeds" / "decline_codes.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def error_codes() -> set[str]:
    """Return the values that the SDK lists for `last_payment_error.code`."""
    literal = typing.get_args(stripe.PaymentIntent.LastPaymentError.__annotations__["code"])[0]
    return set(typing.get_args(literal))


def test_every_error_code_of_the_sdk_is_in_the_seed_or_out_of_scope_for_a_reason(rows: list[dict[str, str]]) -> None:
    seeded = {row["code"] for row in rows}
    out_of_scope = {code for code in error_codes() if any(re.fullmatch(codes, code) for codes in OUT_OF_SCOPE.values())}
    assert len(error_codes()) > 200
    assert error_codes() - seeded == out_of_scope


def test_error_codes_are_spelled_as_the_sdk_spells_them(rows: list[dict[str, str]]) -> None:
    assert {row["code"] for row in rows if row["scope"] == "error_code"} <= error_codes()


def test_every_code_of_the_simulated_account_is_in_the_seed(rows: list[dict[str, str]]) -> None:
    seeded = {(row["scope"], row["code"]) for row in rows}
    for failure in (*calibration.CARD_FAILURES, calibration.BLOCKED):
        assert {("card", failure.decline_code or failure.code), ("error_code", failure.code)} & seeded, failure.name
    for code, _ in (*calibration.DEBIT_FAILURES, *calibration.RETURN_REASONS):
        assert ("bank_debit", code) in seeded


def test_every_next_action_of_the_sdk_is_in_the_seed() -> None:
    with open(DBT_PROJECT_DIR / "seeds" / "next_actions.csv", encoding="utf-8", newline="") as file:
        named = {row["next_action_type"] for row in csv.DictReader(file)}
    assert named == stripe.PaymentIntent.NextAction.__annotations__.keys() - {"type"}


def test_each_payment_method_belongs_to_one_next_action() -> None:
    with open(DBT_PROJECT_DIR / "seeds" / "next_actions.csv", encoding="utf-8", newline="") as file:
        methods = [method for row in csv.DictReader(file) for method in row["payment_method_types"].split()]
    assert len(methods) == len(set(methods)) > 8


@pytest.mark.parametrize("path", sorted((DBT_PROJECT_DIR / "seeds").glob("*.csv")), ids=lambda path: path.stem)
def test_sources_are_public_pages_and_no_package_registries(path: Path) -> None:
    with open(path, encoding="utf-8", newline="") as file:
        sources = {row["source_url"] for row in csv.DictReader(file) if "source_url" in row}
    for source in sources:
        assert re.fullmatch(r"https://[\w.-]+\.[a-z]+/[\w./-]*", source), source
        assert not re.search(r"pypi|npmjs|packagist|crates\.io|rubygems|hex\.pm|unpkg", source), source
