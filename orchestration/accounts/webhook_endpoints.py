"""The webhook endpoints of the integrations: their addresses and signing secrets."""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from orchestration.accounts.registry import IntegrationError, Integrations
from orchestration.base.account import DEFAULT_INTEGRATION
from orchestration.base.files import read_secret, write_secret
from orchestration.config.credentials import SecretRefused, parse_signing_secret
from orchestration.webhooks.endpoint import WebhookEndpoint

ROTATION_GRACE_SECONDS: Final = 24 * 3_600 + 300
"""Time for which a replaced secret is still accepted. Stripe keeps the old one valid for up to a day."""

_TOKEN_BYTES: Final = 24
"""Length of a token: 192 random bits."""


class WebhookFiles:
    """The stored token and secrets of one integration's webhook endpoint.

    Args:
        folder: The folder of the integration's secrets.
        integration: The integration's name.
        configured_secrets: Signing secrets from the environment. If there are any, stored ones are not used.
    """

    def __init__(self, folder: Path, integration: str, configured_secrets: Sequence[SecretStr] = ()) -> None:
        self._folder, self._integration, self._configured_secrets = folder, integration, configured_secrets

    def endpoint(self) -> WebhookEndpoint | None:
        """Return the endpoint, or None if it was not enabled."""
        token = read_secret(self._folder / "webhook_token")
        return WebhookEndpoint(self._integration, SecretStr(token), self._secrets()) if token else None

    def enable(self) -> WebhookEndpoint:
        """Create the endpoint's random token if there is none, and return the endpoint. The token never changes."""
        path = self._folder / "webhook_token"
        if path.exists() and read_secret(path) is None:
            path.unlink()  # empty or damaged, as after a full disk
        with suppress(FileExistsError):
            write_secret(path, secrets.token_urlsafe(_TOKEN_BYTES), is_new=True)
        endpoint = self.endpoint()
        assert endpoint is not None
        return endpoint

    def set_secret(self, pasted: str) -> bool:
        """Store a signing secret, and return whether it replaces another one.

        The replaced secret is still accepted for `ROTATION_GRACE_SECONDS`.

        Raises:
            SecretRefused: The text is not a signing secret.
        """
        secret = parse_signing_secret(pasted).get_secret_value()
        current = read_secret(self._folder / "webhook_secret")
        if current == secret:
            return False
        if current is not None:
            write_secret(self._folder / "webhook_secret_previous", current)
        write_secret(self._folder / "webhook_secret", secret)
        return current is not None

    def _secrets(self) -> Sequence[SecretStr]:
        if self._configured_secrets:
            return self._configured_secrets
        paths = [self._folder / "webhook_secret"]
        previous = self._folder / "webhook_secret_previous"
        with suppress(FileNotFoundError):
            if time.time() - previous.stat().st_mtime < ROTATION_GRACE_SECONDS:
                paths.append(previous)
        return tuple(secret for secret in map(_read_secret, paths) if secret)


@dataclass(frozen=True)
class WebhookEndpoints:
    """The webhook endpoints of a data folder.

    Attributes:
        secrets_dir: The folder of the stored tokens and signing secrets.
        base_url: The address at which Stripe reaches the receiver.
        configured_secrets: Signing secrets from the environment, by the integration's name.
    """

    secrets_dir: Path
    base_url: str
    configured_secrets: Mapping[str, Sequence[SecretStr]]

    def files(self, integration: str = DEFAULT_INTEGRATION) -> WebhookFiles:
        """Return the stored token and secrets of an integration's endpoint, which need not be enabled."""
        configured = self.configured_secrets.get(integration, ())
        return WebhookFiles(self.secrets_dir / integration, integration, configured)

    def enabled(self, integrations: Integrations) -> Sequence[WebhookEndpoint]:
        """Return every enabled endpoint, even if its integration was removed: Stripe may still deliver to it."""
        accounts = _accounts(integrations)
        names = sorted(path.parent.name for path in self.secrets_dir.glob("*/webhook_token"))
        names.sort(key=lambda name: name in accounts)  # the last counts if an interrupted rename left a token twice
        endpoints = (self.files(name).endpoint() for name in names)
        return [replace(endpoint, account_id=accounts.get(endpoint.integration)) for endpoint in endpoints if endpoint]

    def url(self, endpoint: WebhookEndpoint) -> str:
        """Return the address to enter at Stripe."""
        return f"{self.base_url}/webhooks/stripe/{endpoint.token.get_secret_value()}"


def _accounts(integrations: Integrations) -> Mapping[str, str | None]:
    """Return the account id of each integration, or nothing if the registry cannot be read: deliveries still count."""
    with suppress(IntegrationError):
        return integrations.accounts()
    return {}


def _read_secret(path: Path) -> SecretStr | None:
    """Return the signing secret in a file, or None if the file is damaged. Stripe then delivers again later."""
    with suppress(SecretRefused):
        return parse_signing_secret(read_secret(path) or "")
    return None
