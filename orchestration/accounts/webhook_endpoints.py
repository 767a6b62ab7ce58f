"""The webhook endpoints of the integrations: their addresses and signing secrets."""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from orchestration.accounts.registry import IntegrationError, Integrations
from orchestration.base.files import read_secret, write_secret
from orchestration.config.credentials import SecretRefused, parse_signing_secret
from orchestration.config.settings import DEFAULT_INTEGRATION, Settings
from orchestration.webhooks.endpoint import WebhookEndpoint

ROTATION_GRACE_SECONDS: Final = 24 * 3_600 + 300
"""Time for which a replaced secret is still accepted. Stripe keeps the old one valid for up to a day."""

_TOKEN_BYTES: Final = 24
"""Length of a token: 192 random bits."""


class WebhookFiles:
    """The stored token and secrets of one integration's webhook endpoint. Environment variables take precedence."""

    def __init__(self, settings: Settings, integration: str = DEFAULT_INTEGRATION) -> None:
        self._folder = settings.secrets_dir / integration
        self._settings = settings
        self._integration = integration

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
        if configured := self._settings.webhook_secrets(self._integration):
            return configured
        paths = [self._folder / "webhook_secret"]
        previous = self._folder / "webhook_secret_previous"
        with suppress(FileNotFoundError):
            if time.time() - previous.stat().st_mtime < ROTATION_GRACE_SECONDS:
                paths.append(previous)
        return tuple(secret for secret in map(_read_secret, paths) if secret)


def webhook_endpoints(settings: Settings) -> Sequence[WebhookEndpoint]:
    """Return every enabled endpoint, even if its integration was removed: Stripe may still deliver to it."""
    accounts = _accounts(settings)
    names = sorted(path.parent.name for path in settings.secrets_dir.glob("*/webhook_token"))
    names.sort(key=lambda name: name in accounts)  # the last one counts if an interrupted rename left a token twice
    endpoints = (WebhookFiles(settings, name).endpoint() for name in names)
    return [replace(endpoint, account_id=accounts.get(endpoint.integration)) for endpoint in endpoints if endpoint]


def webhook_url(settings: Settings, endpoint: WebhookEndpoint) -> str:
    """Return the address to enter at Stripe."""
    return f"{settings.recoup_webhook_base_url}/webhooks/stripe/{endpoint.token.get_secret_value()}"


def _accounts(settings: Settings) -> Mapping[str, str | None]:
    """Return the account id of each integration, or nothing if the registry cannot be read: deliveries still count."""
    with suppress(IntegrationError):
        return Integrations(settings).accounts()
    return {}


def _read_secret(path: Path) -> SecretStr | None:
    """Return the signing secret in a file, or None if the file is damaged. Stripe then delivers again later."""
    with suppress(SecretRefused):
        return parse_signing_secret(read_secret(path) or "")
    return None
