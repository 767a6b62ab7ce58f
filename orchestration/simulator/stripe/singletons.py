"""Stripe's JSON of an account's single objects: the Account, as its own key or its platform reads it, and Balance."""

from typing import Any

from orchestration.simulator.stripe.instruments import address
from orchestration.simulator.world.account import SimulatedAccount
from orchestration.simulator.world.payers import make_person
from orchestration.simulator.world.steps import token

Json = dict[str, Any]


def account_object(account: SimulatedAccount) -> Json:
    """Return the Account object as the account's own key reads it. It has no `livemode`."""
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


def connected_account_object(account: SimulatedAccount) -> Json:
    """Return the Account object as a platform reads it, with the personal data of the owner."""
    owner = make_person(account.seed)
    home = address(owner, "US")
    contact = {"email": owner.email, "phone": owner.phone}
    return account_object(account) | {
        "business_profile": {
            "mcc": "5734",
            "name": f"Shop of {owner.name}",
            "product_description": f"Ask {owner.name}.",
            "support_address": home,
            **{f"support_{name}": value for name, value in contact.items()},
            "support_url": None,
            "url": "https://shop.example.com",
        },
        "business_type": "individual",
        "email": owner.email,
        "individual": {
            "id": f"person_1{token(account.id, 'owner')[:23]}",
            "object": "person",
            "account": account.id,
            "address": home,
            "created": account.opened_at,
            **contact,
            "first_name": owner.name,
            "last_name": "Specimen",
            "relationship": {"owner": True, "representative": True},
        },
        "settings": {
            "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
            "card_payments": {"statement_descriptor_prefix": None},
            "dashboard": {"display_name": owner.name, "timezone": "Etc/UTC"},
            "payments": {"statement_descriptor": None},
        },
        "type": "express",
    }


def balance_object(account: SimulatedAccount) -> Json:
    """Return an empty balance, since the simulated account pays out at once."""
    nothing = [{"amount": 0, "currency": "usd", "source_types": {"card": 0}}]
    return {"object": "balance", "available": nothing, "livemode": account.livemode, "pending": nothing}
