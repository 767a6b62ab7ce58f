"""Stripe's JSON for what an account has one of: itself and its balance."""

from typing import Any

from orchestration.simulator.account import SimulatedAccount

Json = dict[str, Any]


def account_object(account: SimulatedAccount) -> Json:
    """The Account object as its own key reads it. It has no livemode."""
    return {
        "id": account.id,
        "object": "account",
        "business_profile": {"name": "Simulated Shop", "url": "https://shop.example.com"},
        "charges_enabled": True,
        "country": "US",
        "created": account.opened_at,
        "default_currency": "usd",
        "details_submitted": True,
        "email": "owner@payer.example.com",
        "metadata": {},
        "payouts_enabled": True,
        "type": "standard",
    }


def balance_object(account: SimulatedAccount) -> Json:
    """An empty balance: the simulated account pays out at once."""
    nothing = [{"amount": 0, "currency": "usd", "source_types": {"card": 0}}]
    return {"object": "balance", "available": nothing, "livemode": account.livemode, "pending": nothing}
