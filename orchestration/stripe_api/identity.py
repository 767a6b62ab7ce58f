"""Identify the account and the mode of an API key. They are the first part of the primary key of every stored row.

Stripe may refuse `/v1/account` to a restricted key, whatever else the key may read. `identify` therefore has three
fallbacks.
"""

import logging

from orchestration.base.account import AccountKey
from orchestration.stripe_api import AccessRefused, InvalidRequest, StripeApiError, StripeClient, key_digest

logger = logging.getLogger(__name__)


class AccountMismatch(StripeApiError):
    """The key belongs to another account or another mode than expected."""


def identify(client: StripeClient, *, stated_id: str | None = None) -> AccountKey:
    """Return the account and the mode of the client's key.

    One request asks Stripe and also sets the client's clock. If Stripe refuses it, the id is the one that the refusal
    names, else `stated_id` (STRIPE_ACCOUNT_ID), else a placeholder that lasts as long as the key. The mode may take a
    second request.

    Raises:
        AccountMismatch: Stripe names an account other than `stated_id`.
        AuthenticationFailed, StripeUnavailable: as `StripeClient.get`.
    """
    stripe_id = _id_from_stripe(client)
    if stripe_id and stated_id and stripe_id != stated_id:
        raise AccountMismatch(
            f"This API key belongs to {stripe_id}, and not to {stated_id}, which STRIPE_ACCOUNT_ID or the integration "
            f"names. Use a key of {stated_id}, or connect {stripe_id} by itself."
        )
    return AccountKey(stripe_id or stated_id or _placeholder_id(client), _livemode(client))


def _id_from_stripe(client: StripeClient) -> str | None:
    """Return the account id that Stripe states, or None if it states none."""
    try:
        account_id = client.get("/v1/account").body.get("id")
    except AccessRefused as refusal:
        return refusal.account_id
    except InvalidRequest:
        return None
    return str(account_id) if account_id else None


def _placeholder_id(client: StripeClient) -> str:
    """Return an account id made from the key, and warn that another key will count as another account."""
    logger.warning(
        "Stripe does not tell this key its account. Set STRIPE_ACCOUNT_ID, or a new key will be treated as a new "
        "account."
    )
    return f"acct_unknown_{key_digest(client.api_key)}"


def _livemode(client: StripeClient) -> bool:
    """Return whether the key reads live mode, from its prefix or else from the account's balance."""
    stated = client.livemode
    return bool(client.get("/v1/balance").body["livemode"]) if stated is None else stated
