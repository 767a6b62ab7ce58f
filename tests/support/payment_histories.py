"""Payments as Stripe shows them, made step by step, and two ways to load them: by sync and by webhook."""

import copy
import json
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from orchestration.config.settings import WEBHOOK_EVENTS, Settings
from orchestration.setup.registry import make_webhook_endpoints
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.simulator.world.account import RESOURCES, Entry, Resource
from orchestration.stripe_api import API_VERSION
from orchestration.web.app import receiver
from tests.engines.webhooks.test_receiver import serving, signed
from tests.support import pipeline

MIDNIGHT = 1_767_312_000
"""2026-01-02 00:00:00 UTC."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400
SECRET = "whsec_" + "h" * 32

Payload = dict[str, Any]


def intent(name: str, **fields: Any) -> Payload:
    return {
        "object": "payment_intent",
        "id": f"pi_{name}",
        "created": MIDNIGHT - 60,
        "amount": 5000,
        "amount_received": 0,
        "currency": "usd",
        "status": "requires_payment_method",
        "customer": f"cus_{name}",
        "capture_method": "automatic",
    } | fields


def charge(name: str, number: int = 1, **fields: Any) -> Payload:
    """Return a charge of the payment `name`. By default the first is declined and the others succeed."""
    made: Payload = {
        "object": "charge",
        "id": f"ch_{name}_{number}",
        "payment_intent": f"pi_{name}",
        "created": MIDNIGHT - 30 + 60 * (number - 1),
        "amount": 5000,
        "currency": "usd",
        "customer": f"cus_{name}",
        "payment_method_details": {"type": "card", "card": {"brand": "visa", "fingerprint": f"card_{name}"}},
    }
    if number == 1:
        made |= {"status": "failed", "failure_code": "card_declined"}
        made |= {"outcome": {"type": "issuer_declined", "network_status": "declined_by_network"}}
    else:
        made |= {"status": "succeeded", "captured": True, "amount_captured": 5000}
        made |= {"outcome": {"type": "authorized", "network_status": "approved_by_network"}}
    return made | fields


def recovered(name: str, **fields: Any) -> list[Payload]:
    """Return the objects of a payment that failed once and was then paid."""
    paid = intent(name, status="succeeded", amount_received=5000, latest_charge=f"ch_{name}_2", **fields)
    return [paid, charge(name), charge(name, 2)]


def refund(name: str, number: int, **fields: Any) -> Payload:
    return {
        "object": "refund",
        "id": f"re_{name}_{number}",
        "charge": f"ch_{name}_2",
        "payment_intent": f"pi_{name}",
        "created": MIDNIGHT + DAY,
        "amount": 3000,
        "currency": "usd",
        "status": "succeeded",
        "balance_transaction": "txn_1",
    } | fields


def dispute(name: str, **fields: Any) -> Payload:
    made = refund(name, 1, object="dispute", id=f"dp_{name}", status="lost", reason="fraudulent", amount=5000)
    return made | fields


def event(event_id: str, kind: str, at: int, carried: Payload) -> Payload:
    """Return an event with a copy of the object as it is now."""
    made = {"object": "event", "id": event_id, "created": at, "type": kind}
    return made | {"data": {"object": copy.deepcopy(carried)}}


def failed_event(name: str, at: int, **fields: Any) -> Payload:
    """Return a payment_intent.payment_failed event for a failure that made no charge."""
    error = {"type": "card_error", "code": "payment_intent_authentication_failure"}
    carried = intent(name, last_payment_error=error, **fields)
    return event(f"evt_{name}_{at}", "payment_intent.payment_failed", at, carried)


def canceled(name: str, at: int, **fields: Any) -> Payload:
    return intent(name, status="canceled", canceled_at=at, cancellation_reason="abandoned", **fields)


def card(fingerprint: str, kind: str = "card", **fields: Any) -> Payload:
    """Return a card as `payment_method_details` shows it; `kind` is `card_present` at a terminal."""
    shown = {"brand": "visa", "network": "visa", "funding": "credit", "country": "US", "fingerprint": fingerprint}
    return {"type": kind, kind: shown | {"exp_month": 5, "exp_year": 2029, "last4": "4242"} | fields}


def bank_account(fingerprint: str) -> Payload:
    """Return a bank account that ACH Direct Debit debits."""
    return {"type": "us_bank_account", "us_bank_account": {"fingerprint": fingerprint, "last4": "6789"}}


class Payment:
    """A PaymentIntent, made step by step. Each step changes it and makes its charge and its events.

    Args:
        name: part of all ids.
        at: when it is created. Each step happens `after` so many seconds.
        customer: the id of the customer; a guest has none.
        method: the payment method unless a step names another; by default the card of the customer or of the guest.
        fields: more fields of the PaymentIntent, named as Stripe names them.
    """

    def __init__(
        self,
        name: str,
        amount: int,
        *,
        at: int,
        customer: str | None = None,
        method: Payload | None = None,
        **fields: Any,
    ) -> None:
        self.name, self.at = name, at
        self.method = method or card(f"card_{customer or name}")
        self.intent = intent(name, created=at, amount=amount, customer=customer)
        self.intent |= {"livemode": False, "payment_method_types": [self.method["type"]]} | fields
        self.charges: list[Payload] = []
        self.refunds: list[Payload] = []
        self.events: list[Payload] = []

    @property
    def objects(self) -> list[Payload]:
        """Return all objects of the payment that Stripe lists after the last step."""
        return [self.intent, *self.charges, *self.refunds, *self.events]

    def declined(
        self, after: int = 0, decline_code: str = "insufficient_funds", method: Payload | None = None
    ) -> "Payment":
        """Make a charge that the issuer declines."""
        outcome = {"type": "issuer_declined", "reason": decline_code, "network_status": "declined_by_network"}
        made = self._charge(after, method, status="failed", failure_code="card_declined", outcome=outcome)
        return self._failed(after + 1, "card_declined", decline_code, made)

    def blocked(self, reason: str, after: int = 0, code: str = "card_declined", **fields: Any) -> "Payment":
        """Make a charge that Stripe or a rule of the merchant blocks. `fields` belong to the outcome."""
        outcome = {"type": "blocked", "reason": reason, "network_status": "not_sent_to_network"} | fields
        made = self._charge(after, None, status="failed", failure_code=code, outcome=outcome)
        return self._failed(after + 1, code, "fraudulent" if code == "card_declined" else None, made)

    def unauthenticated(self, after: int = 0) -> "Payment":
        """Fail the authentication by 3-D Secure, which makes no charge."""
        return self._failed(after, "payment_intent_authentication_failure", None, None)

    def repeats_event(self, after: int = 0) -> "Payment":
        """Add a second event for the last step, so many seconds after the first."""
        first = self.events[-1]
        changes = {"id": f"evt_{self.name}_{len(self.events) + 1}", "created": first["created"] + after}
        self.events.append(copy.deepcopy(first) | changes)
        return self

    def paid(self, after: int = 0, method: Payload | None = None, **fields: Any) -> "Payment":
        """Make a charge that is authorized and captured at once."""
        self._charge(after, method, captured=True, amount_captured=self.intent["amount"], **fields)
        return self._succeeded(after + 1)

    def authorized(self, after: int = 0, *, has_event: bool = True) -> "Payment":
        """Make a charge that is authorized and not captured."""
        self._charge(after, None, captured=False)
        self._becomes("requires_capture", amount_capturable=self.intent["amount"], last_payment_error=None)
        return self._add_event("amount_capturable_updated", after + 1) if has_event else self

    def captured(self, after: int) -> "Payment":
        self.charges[-1] |= {"captured": True, "amount_captured": self.intent["amount"]}
        return self._succeeded(after)

    def debited(self, after: int = 0) -> "Payment":
        """Make a bank debit, which the bank may return for some days."""
        self._charge(after, None, status="pending")
        self._becomes("processing", last_payment_error=None)
        return self._add_event("processing", after + 1)

    def settled(self, after: int) -> "Payment":
        self.charges[-1] |= {"status": "succeeded", "captured": True, "amount_captured": self.intent["amount"]}
        return self._succeeded(after)

    def waits(self, action: str, after: int = 0, **shown: Any) -> "Payment":
        """Wait for the customer to act: `action` is the type of `next_action`."""
        self._becomes("requires_action", next_action={"type": action, action: shown}, last_payment_error=None)
        return self._add_event("requires_action", after)

    def canceled(self, after: int, reason: str | None, event_after: int | None = None) -> "Payment":
        self._becomes("canceled", canceled_at=self.at + after, cancellation_reason=reason, amount_capturable=0)
        return self._add_event("canceled", after if event_after is None else event_after)

    def lapsed(self, after: int, reason: str) -> "Payment":
        """End the authorization of the last charge without a capture."""
        last = self.charges[-1]
        last |= {"amount_refunded": last["amount"], "refunded": True}
        facts = {"amount": last["amount"], "currency": last["currency"], "reason": "expired_uncaptured_charge"}
        self.refunds.append(refund(self.name, 1, charge=last["id"], created=self.at + after, **facts))
        self.refunds[-1]["balance_transaction"] = None
        return self.canceled(after, reason)

    def becomes(self, **fields: Any) -> "Payment":
        """Change fields of the PaymentIntent, as a merchant may before it is paid. This makes no event."""
        self.intent |= fields
        return self

    def _becomes(self, status: str, **fields: Any) -> None:
        self.intent |= {"status": status, "next_action": None} | fields

    def _charge(self, after: int, method: Payload | None, **fields: Any) -> Payload:
        number = len(self.charges) + 1
        shared = {name: self.intent[name] for name in ("amount", "currency", "customer")}
        paid_with = method or self.method
        approved = {"type": "authorized", "network_status": "approved_by_network", "risk_level": "normal"}
        facts = {"status": "succeeded", "failure_code": None, "captured": False, "amount_captured": 0}
        facts |= {"amount_refunded": 0, "outcome": approved, "payment_method_details": paid_with} | shared
        made = charge(self.name, number, created=self.at + after, payment_method=_id_of(paid_with), **facts | fields)
        self.charges.append(made)
        self.intent |= {"latest_charge": made["id"], "payment_method": made["payment_method"]}
        return made

    def _failed(self, after: int, code: str, decline_code: str | None, charged: Payload | None) -> "Payment":
        details = charged["payment_method_details"] if charged else self.method
        method = details | {"object": "payment_method", "id": _id_of(details)}
        error = {"type": "card_error", "code": code, "decline_code": decline_code, "payment_method": method}
        error |= {"charge": charged["id"]} if charged else {}
        self._becomes("requires_payment_method", last_payment_error=error, payment_method=None)
        return self._add_event("payment_failed", after)

    def _succeeded(self, after: int) -> "Payment":
        received = {"amount_received": self.intent["amount"], "amount_capturable": 0, "last_payment_error": None}
        self._becomes("succeeded", **received)
        return self._add_event("succeeded", after)

    def _add_event(self, kind: str, after: int) -> "Payment":
        event_id = f"evt_{self.name}_{len(self.events) + 1}"
        made = event(event_id, f"payment_intent.{kind}", self.at + after, self.intent)
        self.events.append(made | {"api_version": API_VERSION, "livemode": False, "pending_webhooks": 0})
        return self


def _id_of(details: Payload) -> str:
    return f"pm_{details[details['type']]['fingerprint']}"


class GivenAccount(SimulatedAccount):
    """An account that holds exactly the given objects. `GivenRenderer` shows them."""

    def __init__(self, objects: Iterable[Payload], now: int) -> None:
        super().__init__(payments=0, days=1, opened_at=now - DAY)
        self._tell_day = lambda *_: []
        for resource in RESOURCES:
            given = [each for each in objects if f"{each['object']}s" == resource]
            made = [
                Entry(each["created"], nth, each["id"], each, nth, each.get("type", ""))  # type: ignore[arg-type]
                for nth, each in enumerate(given)
            ]
            self._entries[resource] = sorted(made)
            self._by_id[resource] = {entry.id: entry for entry in made}


class GivenRenderer:
    """Show each object exactly as it was given."""

    def __init__(self, account: SimulatedAccount, *, is_connected: bool = False) -> None:
        """Accept the arguments of the simulator's renderer."""

    def render(self, resource: Resource, entry: Entry, at: int) -> Payload:
        return copy.deepcopy(entry.intent)  # type: ignore[return-value]


def sync_payments(settings: Settings, payments: Sequence[Payment], now: int) -> None:
    """Sync the payments once, over HTTP, from an account whose clock shows `now`."""
    objects = [each for payment in payments for each in payment.objects]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("orchestration.simulator.server.api.Renderer", GivenRenderer)
        with SimulatorServer(GivenAccount(objects, now)) as server:
            reached = {"stripe_api_key": SecretStr(DEFAULT_API_KEY), "stripe_api_base": server.url}
            report = pipeline.extract(settings.model_copy(update=reached))
    assert report.missing == {}
    assert report.written >= len([each for each in objects if each["object"] != "event"])


def deliver_events(settings: Settings, payments: Sequence[Payment]) -> None:
    """Send the events of the payments to the webhook endpoint, ordered by `created`, and ingest them."""
    subscribed = {"recoup_webhook_events": f"{WEBHOOK_EVENTS},payment_intent.amount_capturable_updated"}
    known = {"stripe_account_id": "acct_1", "stripe_webhook_secret": SecretStr(SECRET)}
    reached = settings.model_copy(update=subscribed | known)
    token = make_webhook_endpoints(reached).files().enable().token.get_secret_value()
    events = sorted((each for payment in payments for each in payment.events), key=lambda each: each["created"])
    with serving(receiver(reached)) as url, requests.Session() as session:
        for each in events:
            body = json.dumps(each).encode()
            header = {"Stripe-Signature": signed(body, SECRET)}
            answer = session.post(f"{url}/webhooks/stripe/{token}", data=body, headers=header, timeout=20)
            assert (answer.status_code, answer.json()) == (200, {"received": True, "stored": 1})
    pipeline.ingest(reached)
    shutil.rmtree(settings.secrets_dir)
