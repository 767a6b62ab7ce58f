"""Where one integration's events come in."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr


@dataclass(frozen=True)
class WebhookEndpoint:
    """The unguessable part of its address, and all secrets that Stripe may sign with now."""

    integration: str
    token: SecretStr
    secrets: Sequence[SecretStr] = ()
