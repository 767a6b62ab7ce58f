"""The webhook endpoint of an integration."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr


@dataclass(frozen=True)
class WebhookEndpoint:
    """The webhook endpoint of an integration.

    `token` is the secret part of its URL. `secrets` are all signing secrets that Stripe may use now. `account_id` is
    the account of its events, or None if it is not known.
    """

    integration: str
    token: SecretStr
    secrets: Sequence[SecretStr] = ()
    account_id: str | None = None
