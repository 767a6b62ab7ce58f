"""Stripe's JSON of PaymentIntents, Charges, Refunds, Disputes and Events after a step, at the pinned API version.

The fields are those that the SDK's typed classes declare (a test compares them). `instruments` renders payment methods,
and `api` renders lists.
"""

from typing import Any

from orchestration.simulator.stripe.instruments import (
    address,
    billing_details,
    charge_details,
    error_payment_method,
    instructions,
    network_advice_code,
    outcome,
)
from orchestration.simulator.stripe.state import ChargeState, State, state_after, steps_until
from orchestration.simulator.world.account import Entry, Resource, SimulatedAccount, customer_account_id, customer_id
from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.payers import Person, make_person
from orchestration.simulator.world.steps import Attempt, Dispute, Intent, token

Json = dict[str, Any]

_MESSAGES = {
    "card_declined": "Your card was declined.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "incorrect_number": "Your card number is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "payment_intent_authentication_failure": "The provided PaymentMethod has failed authentication.",
    "payment_intent_payment_attempt_expired": "The latest payment attempt of this PaymentIntent has expired.",
    "insufficient_funds": "The customer's account has insufficient funds to cover this payment.",
    "account_closed": "The customer's bank account has been closed.",
    "debit_not_authorized": "The customer has notified their bank that this payment was unauthorized.",
}

_METHOD_TYPES = ("card", "sepa_debit", "us_bank_account")


class Renderer:
    """Renders objects of an account as its own key reads them or, if `is_connected`, as its platform reads them."""

    def __init__(self, account: SimulatedAccount, *, is_connected: bool = False) -> None:
        self._account = account
        self._is_connected = is_connected

    def render(self, resource: Resource, entry: Entry, at: int) -> Json:
        """Return the object as of `at` (Unix seconds). An event is the same at any time."""
        if resource == "events":
            return self._event(entry)
        intent = entry.intent
        state = state_after(intent, steps_until(intent, at))
        match resource:
            case "payment_intents":
                return self._payment_intent(intent, state)
            case "charges":
                return self._charge(intent, state, entry.nth)
            case "refunds":
                return self._refund(intent, state, entry.nth)
            case "disputes":
                return self._dispute(intent, state, entry.nth)

    def _event(self, entry: Entry) -> Json:
        intent, step = entry.intent, entry.intent.steps[entry.nth]
        state = state_after(intent, entry.nth + 1)
        by_merchant = entry.event_type in ("payment_intent.created", "refund.created", "payment_intent.canceled")
        request = {
            "id": f"req_{token(entry.id)[:14]}" if by_merchant else None,
            "idempotency_key": f"key_{token(entry.id, 'key')}" if by_merchant else None,
        }
        data: Json = {"object": self._subject(entry.event_type, intent, state, step.nth)}
        if entry.event_type == "charge.updated":
            data["previous_attributes"] = {"balance_transaction": None}
        elif entry.event_type in ("refund.updated", "charge.refund.updated", "charge.dispute.updated"):
            data["previous_attributes"] = {"status": self._previous_status(entry)}
        return {
            "id": entry.id,
            "object": "event",
            **({"account": self._account.id} if self._is_connected else {}),
            "api_version": self._account.event_api_version,
            "created": entry.created,
            "data": data,
            "livemode": self._account.livemode,
            "pending_webhooks": 0,
            "request": request,
            "type": entry.event_type,
        }

    def _subject(self, event_type: str, intent: Intent, state: State, index: int) -> Json:
        if event_type.startswith("payment_intent."):
            return self._payment_intent(intent, state)
        if event_type.startswith("charge.dispute."):
            return self._dispute(intent, state, index)
        if event_type.startswith(("refund.", "charge.refund.")):
            return self._refund(intent, state, index)
        if event_type == "charge.refunded":
            return self._charge(intent, state, intent.refunds[index].attempt)
        return self._charge(intent, state, index)

    def _previous_status(self, entry: Entry) -> str:
        intent, step = entry.intent, entry.intent.steps[entry.nth]
        before = state_after(intent, entry.nth)
        return before.disputes[step.nth] if "dispute" in entry.event_type else before.refunds[step.nth]

    def _payment_intent(self, intent: Intent, state: State) -> Json:
        currency, amount = _price(intent, state)
        who = make_person(intent.customer)
        return {
            "id": intent.id,
            "object": "payment_intent",
            "allowed_payment_method_types": None,
            "amount": amount,
            "amount_capturable": state.capturable,
            "amount_details": {"tip": {}},
            "amount_received": state.received,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
            "canceled_at": state.canceled_at,
            "cancellation_reason": state.cancellation_reason,
            "capture_method": intent.capture_method,
            "client_secret": f"{intent.id}_secret_{token(intent.id, 'secret')}",
            "confirmation_method": "automatic",
            "created": intent.created,
            "currency": currency,
            "customer": None if intent.is_customer_account else self._customer(intent),
            "customer_account": self._customer(intent) if intent.is_customer_account else None,
            "description": f"Order of {who.name}",
            "excluded_payment_method_types": None,
            "last_payment_error": self._last_payment_error(intent, state),
            "latest_charge": None if state.latest is None else intent.attempts[state.latest].charge,
            "livemode": self._account.livemode,
            "metadata": intent.metadata,
            "next_action": self._next_action(intent, state) if state.status == "requires_action" else None,
            "on_behalf_of": None,
            "payment_details": {
                "customer_reference": None,
                "order_reference": intent.order_key if intent.is_order_in_details else None,
            },
            "payment_method": _held_payment_method(intent, state),
            "payment_method_configuration_details": None,
            "payment_method_options": _method_options(intent),
            "payment_method_types": list(intent.method_types or _METHOD_TYPES),
            "processing": None,
            "receipt_email": who.email,
            "review": None,
            "setup_future_usage": "off_session" if intent.is_saved else None,
            "shipping": self._shipping(who),
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": state.status,
            "transfer_data": None,
            "transfer_group": None,
        }

    def _customer(self, intent: Intent) -> str | None:
        if intent.customer is None:
            return None
        make_id = customer_account_id if intent.is_customer_account else customer_id
        return make_id(self._account.seed, intent.customer)

    def _shipping(self, who: Person) -> Json:
        return {
            "address": address(who, "US"),
            "carrier": None,
            "name": who.name,
            "phone": who.phone,
            "tracking_number": None,
        }

    def _next_action(self, intent: Intent, state: State) -> Json:
        if state.waiting is not None:
            return instructions(intent, intent.waits[state.waiting], state.waiting)
        secret = token(intent.id, "challenge")
        url = (
            f"https://hooks.stripe.com/3d_secure_2/hosted?payment_intent={intent.id}&client_secret=src_secret_{secret}"
        )
        return {
            "type": "redirect_to_url",
            "redirect_to_url": {"return_url": "https://shop.example.com/done", "url": url},
        }

    def _last_payment_error(self, intent: Intent, state: State) -> Json | None:
        if state.failed is None:
            return None
        attempt = intent.attempts[state.failed]
        failure = attempt.failure
        assert failure is not None
        method = error_payment_method(attempt, intent, self._customer(intent), livemode=self._account.livemode)
        error: Json = {
            "code": failure.code,
            "doc_url": f"https://stripe.com/docs/error-codes/{failure.code.replace('_', '-')}",
            "message": _MESSAGES[failure.code],
            "payment_method": method,
            "type": "card_error" if attempt.instrument.kind.startswith("card") else "invalid_request_error",
        }
        optional = {
            "advice_code": failure.advice_code,
            "charge": attempt.charge,
            "decline_code": failure.decline_code,
            "network_advice_code": network_advice_code(attempt, failure),
            "network_decline_code": failure.network_decline_code,
        }
        return error | {key: value for key, value in optional.items() if value is not None}

    def _charge(self, intent: Intent, state: State, index: int) -> Json:
        attempt, charge = intent.attempts[index], state.charges[index]
        who = make_person(intent.customer)
        is_failed = charge.status == "failed"
        failure = attempt.failure if is_failed else None
        currency, amount = attempt.price or (intent.currency, intent.amount)
        return {
            "id": attempt.charge,
            "object": "charge",
            "amount": amount,
            "amount_captured": charge.amount_captured,
            "amount_refunded": charge.amount_refunded,
            "application": None,
            "application_fee": None,
            "application_fee_amount": None,
            "balance_transaction": _balance_transaction(attempt) if charge.is_balanced else None,
            "billing_details": billing_details(who, attempt.instrument.country),
            "calculated_statement_descriptor": "SIMULATED SHOP",
            "captured": charge.captured,
            "created": attempt.at,
            "currency": currency,
            "customer": None if intent.is_customer_account else self._customer(intent),
            "description": f"Order of {who.name}",
            "disputed": charge.is_disputed,
            "failure_balance_transaction": None,
            "failure_code": failure.code if failure else None,
            "failure_message": _MESSAGES[failure.code] if failure else None,
            "fraud_details": {},
            "livemode": self._account.livemode,
            "metadata": intent.metadata,
            "on_behalf_of": None,
            "outcome": outcome(attempt, failure),
            "paid": charge.status == "succeeded",
            "payment_intent": intent.id,
            "payment_method": attempt.instrument.payment_method,
            "payment_method_details": charge_details(attempt, intent),
            "radar_options": {},
            "receipt_email": who.email,
            "receipt_number": None,
            "receipt_url": None if is_failed else f"https://pay.stripe.com/receipts/_secret_{token(attempt.charge)}",
            "refunded": _is_refunded(intent, charge),
            "review": None,
            "shipping": self._shipping(who),
            "source": None,
            "source_transfer": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": charge.status,
            "transfer_data": None,
            "transfer_group": None,
        }

    def _refund(self, intent: Intent, state: State, index: int) -> Json:
        refund, status = intent.refunds[index], state.refunds[index]
        attempt = intent.attempts[refund.attempt]
        is_card = attempt.instrument.kind.startswith("card")
        details: Json = {"type": "card", "card": {"reference_status": "pending", "type": "refund"}}
        rendered: Json = {
            "id": refund.id,
            "object": "refund",
            "amount": refund.amount,
            "balance_transaction": f"txn_3{token(refund.id)[:23]}" if state.charges[refund.attempt].captured else None,
            "charge": attempt.charge,
            "created": refund.at,
            "currency": intent.currency,
            "destination_details": details
            if is_card
            else {"type": f"{attempt.instrument.country.lower()}_bank_transfer"},
            "metadata": {},
            "payment_intent": intent.id,
            "reason": refund.reason,
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": status,
            "transfer_reversal": None,
        }
        if status == "failed":
            rendered["failure_balance_transaction"] = f"txn_3{token(refund.id, 'failed')[:23]}"
            rendered["failure_reason"] = "expired_or_canceled_card" if is_card else "declined"
        return rendered

    def _dispute(self, intent: Intent, state: State, index: int) -> Json:
        dispute, status = intent.disputes[index], state.disputes[index]
        attempt = intent.attempts[dispute.attempt]
        is_answered = "needs_response" not in status and not dispute.is_return
        return {
            "id": dispute.id,
            "object": "dispute",
            "amount": dispute.amount,
            "balance_transactions": [],
            "charge": attempt.charge,
            "created": dispute.at,
            "currency": intent.currency,
            "enhanced_eligibility_types": [],
            "evidence": self._evidence(intent),
            "evidence_details": {
                "due_by": dispute.at + 9 * DAY,
                "enhanced_eligibility": {},
                "has_evidence": is_answered,
                "past_due": False,
                "submission_count": int(is_answered),
                "submission_method": "manual" if is_answered else "not_submitted",
            },
            "is_charge_refundable": status.startswith("warning"),
            "livemode": self._account.livemode,
            "metadata": {},
            "network_reason_code": "10.4" if dispute.reason == "fraudulent" else None,
            "payment_intent": intent.id,
            "payment_method_details": _disputed_details(attempt, dispute),
            "reason": dispute.reason,
            "status": status,
        }

    def _evidence(self, intent: Intent) -> Json:
        who = make_person(intent.customer)
        return {
            "billing_address": f"{who.street}, {who.town}",
            "customer_email_address": who.email,
            "customer_name": who.name,
            "customer_purchase_ip": who.ip,
            "enhanced_evidence": {},
            "shipping_address": f"{who.street}, {who.town}",
            "uncategorized_text": f"{who.name} confirmed the order by telephone, {who.phone}.",
        }


def _price(intent: Intent, state: State) -> tuple[str, int]:
    """Return currency and amount of the PaymentIntent, which an update may have changed."""
    is_earlier = intent.earlier_price is not None and not state.is_repriced
    return intent.earlier_price if intent.earlier_price and is_earlier else (intent.currency, intent.amount)


def _held_payment_method(intent: Intent, state: State) -> str | None:
    if state.waiting is not None:
        return intent.waits[state.waiting].instrument.payment_method
    return None if state.used is None else intent.attempts[state.used].instrument.payment_method


def _method_options(intent: Intent) -> Json:
    """Return the `payment_method_options` of the PaymentIntent."""
    options: dict[str, Json] = {
        "card": {"request_three_d_secure": "automatic"},
        "customer_balance": {"bank_transfer": {"type": "eu_bank_transfer"}, "funding_type": "bank_transfer"},
        "boleto": {"expires_after_days": 3},
        "oxxo": {"expires_after_days": 3},
    }
    kinds = ("card",) if intent.method_types is None else intent.method_types
    return {kind: options.get(kind, {}) for kind in kinds}


def _is_refunded(intent: Intent, charge: ChargeState) -> bool:
    return charge.amount_refunded > 0 and charge.amount_refunded >= (charge.amount_captured or intent.amount)


def _balance_transaction(attempt: Attempt) -> str:
    return f"txn_3{token(attempt.charge)[:23]}"


def _disputed_details(attempt: Attempt, dispute: Dispute) -> Json | None:
    card = attempt.instrument
    if card.kind != "card":
        return None
    case = "inquiry" if dispute.status.startswith("warning") else "chargeback"
    return {"type": "card", "card": {"brand": card.brand, "case_type": case, "network": card.brand}}
