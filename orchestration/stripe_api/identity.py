"""Which account the key belongs to, and in which mode: what every key of a row begins with.

A restricted key may be refused `/v1/account` however much it may read, so there are three more ways to know.
"""

import logging

from orchestration.base.account import AccountKey
from orchestration.stripe_api import AccessRefused, InvalidRequest, StripeApiError, StripeClient, key_digest

logger = logging.getLogger(__name__)


class AccountMismatch(StripeApiError):
    """The key belongs to another account, or to another mode of it, than it should."""


def identify(client: StripeClient, *, stated_id: str | None = None) -> AccountKey:
    """Ask Stripe for the account; one request, which also sets the clock.

    Where Stripe does not tell: the account that its refusal names, else `stated_id` (STRIPE_ACCOUNT_ID), else an id of
    our own that lasts as long as the key does.

    Raises:
        AccountMismatch: Stripe names another account than `stated_id`.
        AuthenticationFailed, StripeUnavailable: as `StripeClient.get`.
    """
    told_id = _ask(client)
    if told_id and stated_id and told_id != stated_id:
        raise AccountMismatch(
            f"This API key belongs to {told_id}, and not to {stated_id}, which STRIPE_ACCOUNT_ID or the integration "
            f"names. Use a key of {stated_id}, or connect {told_id} by itself."
        )
    return AccountKey(told_id or stated_id or _own_id(client), _livemode(client))


def _ask(client: StripeClient) -> str | None:
    try:
        account_id = client.get("/v1/account").body.get("id")
    except AccessRefused as refusal:
        return refusal.account_id
    except InvalidRequest:
        return None
    return str(account_id) if account_id else None


def _own_id(client: StripeClient) -> str:
    logger.warning("Stripe does not tell this key its account. Set STRIPE_ACCOUNT_ID, or a new key will start anew.")
    return f"acct_unknown_{key_digest(client.api_key)}"


def _livemode(client: StripeClient) -> bool:
    """By the key's prefix; the balance says it where a prefix does not."""
    told = client.livemode
    return bool(client.get("/v1/balance").body["livemode"]) if told is None else told
