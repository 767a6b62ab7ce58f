"""The door: no secret and no personal field passes it, and what recovery needs does."""

from copy import deepcopy
from typing import Any

import pytest

from orchestration.warehouse.scrub import scrub, stored_json


@pytest.mark.parametrize(
    "key",
    [
        "client_secret",
        "billing_details",
        "shipping",
        "receipt_email",
        "customer_name",
        "customerEmail",
        "phone",
        "billing_address",
        "tax_id",
        "evidence",
        "receipt_url",
        "verified_name",
        "payer-email",
        "Full Name",
        "iban",
        "ip_address",
        "description",
    ],
)
def test_a_personal_or_secret_key_is_dropped_at_any_depth(key: str) -> None:
    node = {key: "secret", "list": [{"deeper": {key: {"line1": "secret"}}}]}
    assert scrub(node) == {"list": [{"deeper": {}}]}


@pytest.mark.parametrize(
    "kept",
    [
        {"brand": "visa", "last4": "4242", "fingerprint": "F", "exp_month": 1},
        {"checks": {"address_line1_check": "pass", "address_postal_code_check": "fail", "cvc_check": "pass"}},
        {"us_bank_account": {"bank_name": "STRIPE TEST BANK", "fingerprint": "F"}},
        {"metadata": {"order_id": "A-17", "plan": "pro", "invoice_id": "in_1"}},
        {"payment_method_types": ["card"], "description_code": 1, "shipment": 2, "recipe": 3, "zipped": 4},
    ],
)
def test_what_recovery_needs_is_kept(kept: dict[str, Any]) -> None:
    assert scrub(deepcopy(kept)) == kept


@pytest.mark.parametrize("text", ["jane@example.com", "call jane@example.com today", "+49 170 1234567", "+15551234567"])
def test_an_address_or_number_under_a_harmless_key_becomes_null(text: str) -> None:
    assert scrub({"metadata": {"note": text, "order_id": "A-1"}}) == {"metadata": {"note": None, "order_id": "A-1"}}


def test_of_next_action_only_its_type_is_kept() -> None:
    action = {"type": "redirect_to_url", "redirect_to_url": {"url": "https://hooks.stripe.com/x?client_secret=y"}}
    assert scrub({"next_action": action}) == {"next_action": {"type": "redirect_to_url"}}


def test_equal_objects_are_equal_text() -> None:
    assert stored_json({"b": 1, "a": {"d": 1, "c": 2}}) == stored_json({"a": {"c": 2, "d": 1}, "b": 1})
