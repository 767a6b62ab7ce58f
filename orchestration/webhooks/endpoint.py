"""Where one integration's events come in."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr


@dataclass(frozen=True)
class WebhookEndpoint:
    """The unguessable part of its address, all secrets that Stripe may sign with now, and whose events they are, as far
    as that is known."""

    integration: str
    token: SecretStr
    secrets: Sequence[SecretStr] = ()
    account_id: str | None = None
