"""What an integration is: a name, an account's API key, and the webhook endpoint where that account's events come in.

There is one, `default`, from STRIPE_API_KEY. Its webhook's token and signing secrets lie in files that only their owner
may read; STRIPE_WEBHOOK_SECRET goes before the files.
"""

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from orchestration.credentials import SecretRefused, signing_secret
from orchestration.settings import Settings
from orchestration.webhooks.endpoint import WebhookEndpoint

DEFAULT: Final = "default"

ROLLED_FOR: Final = 24 * 3_600 + 300
"""Seconds for which a replaced secret still counts: Stripe lets the old one live for up to a day."""

_TOKEN_BYTES: Final = 24


class WebhookFiles:
    """The files of one integration's webhook endpoint."""

    def __init__(self, settings: Settings, integration: str = DEFAULT) -> None:
        self._folder = settings.secrets_dir / integration
        self._settings = settings
        self._integration = integration

    def endpoint(self) -> WebhookEndpoint | None:
        """The endpoint as it is now; None until `enable` was called."""
        token = _read(self._folder / "webhook_token")
        return WebhookEndpoint(self._integration, SecretStr(token), self._secrets()) if token else None

    def enable(self) -> WebhookEndpoint:
        """The endpoint, with a token of 192 random bits that stays the same from the first call on."""
        path = self._folder / "webhook_token"
        if path.exists() and _read(path) is None:
            path.unlink()  # emptied by hand, or by a full disk
        with suppress(FileExistsError):
            _write(path, secrets.token_urlsafe(_TOKEN_BYTES), is_new=True)
        endpoint = self.endpoint()
        assert endpoint is not None
        return endpoint

    def set_secret(self, pasted: str) -> bool:
        """Keep a signing secret. Returns whether another one was replaced, which then counts for another day.

        Raises:
            SecretRefused: what was pasted is no signing secret.
        """
        secret = signing_secret(pasted).get_secret_value()
        current = _read(self._folder / "webhook_secret")
        if current == secret:
            return False
        if current is not None:
            _write(self._folder / "webhook_secret_previous", current)
        _write(self._folder / "webhook_secret", secret)
        return current is not None

    def _secrets(self) -> Sequence[SecretStr]:
        if self._settings.webhook_secrets:
            return self._settings.webhook_secrets
        paths = [self._folder / "webhook_secret"]
        previous = self._folder / "webhook_secret_previous"
        with suppress(FileNotFoundError):
            if time.time() - previous.stat().st_mtime < ROLLED_FOR:
                paths.append(previous)
        return tuple(secret for secret in map(_secret_in, paths) if secret)


def webhook_url(settings: Settings, endpoint: WebhookEndpoint) -> str:
    """The address to be entered at Stripe."""
    return f"{settings.recoup_webhook_base_url}/webhooks/stripe/{endpoint.token.get_secret_value()}"


def _secret_in(path: Path) -> SecretStr | None:
    """What is no signing secret, such as a file that was damaged, counts as none: deliveries wait at Stripe then."""
    with suppress(SecretRefused):
        return signing_secret(_read(path) or "")
    return None


def _read(path: Path) -> str | None:
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8").strip() or None
    return None


def _write(path: Path, text: str, *, is_new: bool = False) -> None:
    """Whole or not at all, for its owner only.

    Raises:
        FileExistsError: it must be new and is there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    try:
        if is_new:
            os.link(beside, path)
        else:
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
