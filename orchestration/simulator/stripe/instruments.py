"""Stripe's JSON of payment methods and network outcomes: nested parts of charges and errors."""

from typing import Any

from orchestration.simulator.world.calibration import Failure
from orchestration.simulator.world.payers import Person, make_person
from orchestration.simulator.world.steps import Attempt, Instrument, Intent, Wait, token

Json = dict[str, Any]

_ROUTING_NUMBER = "110000000"
_OUT_OF_BAND: dict[str, Json] = {
    "boleto": {"tax_id": "Specimen 000.000.000-00"},
    "oxxo": {"number": None},
    "konbini": {"store": {"chain": "lawson"}},
    "customer_balance": {},
}
"""Payment method details of charges by voucher or bank transfer."""


def address(who: Person, country: str) -> Json:
    """Return the postal address of a person."""
    return {
        "city": who.town,
        "country": country,
        "line1": who.street,
        "line2": None,
        "postal_code": "Specimen 1",
        "state": None,
    }


def billing_details(who: Person, country: str) -> Json:
    """Return the `billing_details` of a charge or payment method."""
    return {
        "address": address(who, country),
        "email": who.email,
        "name": who.name,
        "phone": who.phone,
        "tax_id": None,
    }


def outcome(attempt: Attempt, failure: Failure | None) -> Json:
    """Return the `outcome` of a charge. `failure` is None if the attempt has not failed (yet)."""
    if failure is None:
        return {
            "advice_code": None,
            "network_advice_code": None,
            "network_decline_code": None,
            "network_status": "approved_by_network",
            "reason": None,
            "risk_level": "normal" if attempt.instrument.kind == "card" else "not_assessed",
            "seller_message": "Payment complete.",
            "type": "authorized",
        }
    is_blocked = failure.outcome_type == "blocked"
    return {
        "advice_code": failure.advice_code,
        "network_advice_code": network_advice_code(attempt, failure),
        "network_decline_code": failure.network_decline_code,
        "network_status": failure.network_status,
        "reason": _reason(failure),
        "risk_level": "highest" if is_blocked and failure.outcome_reason is None else "normal",
        "seller_message": "Stripe blocked this payment." if is_blocked else "The bank returned a decline code.",
        "type": failure.outcome_type,
    }


def _reason(failure: Failure) -> str:
    if failure.outcome_reason is not None:
        return failure.outcome_reason
    return "highest_risk_level" if failure.outcome_type == "blocked" else failure.decline_code or failure.code


def network_advice_code(attempt: Attempt, failure: Failure) -> str | None:
    """Return the network's advice on retries, as outcomes and errors show it. Only Mastercard's `03` is simulated."""
    has_advice = failure.advice_code == "do_not_try_again" and attempt.instrument.brand == "mastercard"
    return "03" if has_advice else None


def charge_details(attempt: Attempt, intent: Intent) -> Json:
    """Return the `payment_method_details` of a charge."""
    instrument = attempt.instrument
    if instrument.kind == "card":
        return {"type": "card", "card": _charged_card(attempt, intent)}
    if instrument.kind == "card_present":
        return {"type": "card_present", "card_present": _charged_card_present(attempt, intent)}
    if instrument.kind in _OUT_OF_BAND:
        return {"type": instrument.kind, instrument.kind: _OUT_OF_BAND[instrument.kind]}
    return {"type": instrument.kind, instrument.kind: _bank_account(instrument) | {"mandate": None}}


def _charged_card(attempt: Attempt, intent: Intent) -> Json:
    card = attempt.instrument
    is_wrong_cvc = attempt.failure is not None and attempt.failure.name == "incorrect_cvc"
    has_cvc = not attempt.off_session and card.wallet is None
    return {
        "amount_authorized": None if attempt.failure else intent.amount,
        "authorization_code": None if attempt.failure else f"{int(card.last4) + 100_000}",
        "brand": card.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": "pass",
            "cvc_check": None if not has_cvc else "fail" if is_wrong_cvc else "pass",
        },
        "country": card.country,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "last4": card.last4,
        "mandate": None,
        "network": card.brand,
        "network_token": {"used": False},
        "network_transaction_id": None if attempt.failure else token(attempt.charge, "network")[:15],
        "regulated_status": "unregulated",
        "stored_credential_usage": "recurring" if attempt.off_session else None,
        "three_d_secure": _three_d_secure(attempt),
        "wallet": None if card.wallet is None else _wallet(card),
    }


def _charged_card_present(attempt: Attempt, intent: Intent) -> Json:
    card = attempt.instrument
    return _read_card(card) | {
        "amount_authorized": None if attempt.failure else intent.amount,
        "emv_auth_data": None,
        "generated_card": None,
        "incremental_authorization_supported": False,
        "network_transaction_id": None if attempt.failure else token(attempt.charge, "network")[:15],
        "overcapture_supported": False,
        "receipt": None,
    }


def _read_card(card: Instrument) -> Json:
    """Return a card read at a terminal, as charges and payment methods show it."""
    return {
        "brand": card.brand,
        "brand_product": None,
        "cardholder_name": None,
        "country": card.country,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "last4": card.last4,
        "offline": None,
        "preferred_locales": ["en"],
        "read_method": "contactless_emv",
    }


def _wallet(card: Instrument) -> Json:
    return {"dynamic_last4": None, "type": card.wallet, str(card.wallet): {}}


def _three_d_secure(attempt: Attempt) -> Json | None:
    if attempt.three_d_secure is None:
        return None
    return {
        "authentication_flow": "challenge",
        "electronic_commerce_indicator": "05",
        "exemption_indicator": None,
        "result": attempt.three_d_secure,
        "result_reason": None,
        "transaction_id": token(attempt.charge, "3ds"),
        "version": "2.2.0",
    }


def _bank_account(instrument: Instrument) -> Json:
    if instrument.kind == "sepa_debit":
        return {
            "bank_code": "37040044",
            "branch_code": "",
            "country": instrument.country,
            "fingerprint": instrument.fingerprint,
            "last4": instrument.last4,
        }
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "SIMULATED BANK",
        "fingerprint": instrument.fingerprint,
        "last4": instrument.last4,
        "routing_number": _ROUTING_NUMBER,
    }


def error_payment_method(attempt: Attempt, intent: Intent, customer: str | None, *, livemode: bool) -> Json:
    """Return the payment method object in `last_payment_error`."""
    instrument = attempt.instrument
    account = {"customer_account": customer} if intent.is_customer_account else {}
    return {
        "id": instrument.payment_method,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": billing_details(make_person(intent.customer), instrument.country),
        "created": intent.created,
        "customer": None if account else customer,
        **account,
        "livemode": livemode,
        "metadata": {},
        "type": instrument.kind,
        instrument.kind: _stored_details(instrument),
    }


def _stored_details(instrument: Instrument) -> Json:
    match instrument.kind:
        case "card":
            return _stored_card(instrument)
        case "card_present":
            return _read_card(instrument) | {"networks": None}
        case "boleto":
            return _OUT_OF_BAND["boleto"]
        case "oxxo" | "konbini" | "customer_balance":
            return {}
        case _:
            return _bank_account(instrument)


def instructions(intent: Intent, wait: Wait, number: int) -> Json:
    """Return the `next_action` of a PaymentIntent that waits for a voucher or bank transfer."""
    url = f"https://payments.stripe.com/{wait.instrument.kind}/voucher/_secret_{token(intent.id, 'voucher', number)}"
    reference = token(intent.id, "reference", number)[:14].upper()
    details: dict[str, tuple[str, Json]] = {
        "boleto": (
            "boleto_display_details",
            {"expires_at": wait.expires_at, "hosted_voucher_url": url, "number": reference, "pdf": f"{url}/pdf"},
        ),
        "oxxo": (
            "oxxo_display_details",
            {"expires_after": wait.expires_at, "hosted_voucher_url": url, "number": reference},
        ),
        "konbini": (
            "konbini_display_details",
            {
                "expires_at": wait.expires_at,
                "hosted_voucher_url": url,
                "stores": {
                    "familymart": None,
                    "lawson": {"confirmation_number": None, "payment_code": reference},
                    "ministop": None,
                    "seicomart": None,
                },
            },
        ),
        "customer_balance": (
            "display_bank_transfer_instructions",
            {
                "amount_remaining": intent.amount,
                "currency": intent.currency,
                "hosted_instructions_url": url,
                "reference": reference,
                "type": "eu_bank_transfer",
            },
        ),
    }
    kind, body = details[wait.instrument.kind]
    return {"type": kind, kind: body}


def _stored_card(card: Instrument) -> Json:
    return {
        "brand": card.brand,
        "checks": {"address_line1_check": None, "address_postal_code_check": "pass", "cvc_check": "unchecked"},
        "country": card.country,
        "display_brand": card.brand,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": card.fingerprint,
        "funding": card.funding,
        "generated_from": None,
        "last4": card.last4,
        "networks": {"available": [card.brand], "preferred": None},
        "three_d_secure_usage": {"supported": True},
        "wallet": None if card.wallet is None else _wallet(card),
    }
