"""The webhook endpoint of each integration: its address and its signing secrets."""

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
"""Seconds for which a replaced secret still counts: Stripe lets the old one live for up to a day."""

_TOKEN_BYTES: Final = 24


class WebhookFiles:
    """The files of one integration's webhook endpoint. Secrets of the environment go before the files."""

    def __init__(self, settings: Settings, integration: str = DEFAULT_INTEGRATION) -> None:
        self._folder = settings.secrets_dir / integration
        self._settings = settings
        self._integration = integration

    def endpoint(self) -> WebhookEndpoint | None:
        """The endpoint as it is now; None until `enable` was called."""
        token = read_secret(self._folder / "webhook_token")
        return WebhookEndpoint(self._integration, SecretStr(token), self._secrets()) if token else None

    def enable(self) -> WebhookEndpoint:
        """The endpoint, with a token of 192 random bits that stays the same from the first call on."""
        path = self._folder / "webhook_token"
        if path.exists() and read_secret(path) is None:
            path.unlink()  # emptied by hand, or by a full disk
        with suppress(FileExistsError):
            write_secret(path, secrets.token_urlsafe(_TOKEN_BYTES), is_new=True)
        endpoint = self.endpoint()
        assert endpoint is not None
        return endpoint

    def set_secret(self, pasted: str) -> bool:
        """Keep a signing secret. Returns whether another one was replaced, which then counts for another day.

        Raises:
            SecretRefused: what was pasted is no signing secret.
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
        if self._settings.webhook_secrets(self._integration):
            return self._settings.webhook_secrets(self._integration)
        paths = [self._folder / "webhook_secret"]
        previous = self._folder / "webhook_secret_previous"
        with suppress(FileNotFoundError):
            if time.time() - previous.stat().st_mtime < ROTATION_GRACE_SECONDS:
                paths.append(previous)
        return tuple(secret for secret in map(_secret_in, paths) if secret)


def webhook_endpoints(settings: Settings) -> Sequence[WebhookEndpoint]:
    """Every endpoint that was enabled, whatever became of its integration since: Stripe may still deliver to it."""
    accounts = _accounts(settings)
    names = sorted(path.parent.name for path in settings.secrets_dir.glob("*/webhook_token"))
    names.sort(key=lambda name: name in accounts)  # the last counts, where a rename that was stopped left a token twice
    found = (WebhookFiles(settings, name).endpoint() for name in names)
    return [replace(endpoint, account_id=accounts.get(endpoint.integration)) for endpoint in found if endpoint]


def webhook_url(settings: Settings, endpoint: WebhookEndpoint) -> str:
    """The address to be entered at Stripe."""
    return f"{settings.recoup_webhook_base_url}/webhooks/stripe/{endpoint.token.get_secret_value()}"


def _accounts(settings: Settings) -> Mapping[str, str | None]:
    """The account of each integration, as far as it is known. A file that cannot be read turns no delivery away."""
    with suppress(IntegrationError):
        return Integrations(settings).accounts()
    return {}


def _secret_in(path: Path) -> SecretStr | None:
    """What is no signing secret, such as a file that was damaged, counts as none: deliveries wait at Stripe then."""
    with suppress(SecretRefused):
        return parse_signing_secret(read_secret(path) or "")
    return None
