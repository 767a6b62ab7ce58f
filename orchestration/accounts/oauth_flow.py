"""How an account authorizes the Stripe App: the link to Stripe's page, and what happens when the user returns.

A link is valid once, for ten minutes, and for one integration. Its `state` is stored only as a hash, so the
files cannot be used to build a link.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from orchestration.accounts.clients import StripeConnections
from orchestration.accounts.oauth_tokens import INVALID_GRANT, StripeApp, TokenFile, Tokens, exchange, resolve_livemode
from orchestration.accounts.registry import Integration, IntegrationError, Integrations, check_name
from orchestration.base.errors import RecoupError
from orchestration.base.files import read_secret, write_secret
from orchestration.base.locks import exclusive_lock
from orchestration.stripe_api import CHECK_RETRY, CHECK_TIMEOUT_SECONDS, InvalidRequest

CALLBACK_PATH: Final = "/oauth/stripe/callback"

LINK_SECONDS: Final = 600
"""Time for which a link is valid."""

_STATE_BYTES: Final = 32


class NotConnected(RecoupError):
    """An authorization that did not connect an account. The text says why, and what to do."""


@dataclass(frozen=True)
class AppAuthorization:
    """The values that an authorization of the Stripe App needs.

    Attributes:
        connections: The app, and the registry to which accounts are added.
        page: The address of Stripe's page on which accounts authorize the app.
        callback_url: The address to which Stripe redirects the user. The app's `allowed_redirect_uris` must list it
            exactly.
        folder: The folder of the links that were not used yet.
    """

    connections: StripeConnections
    page: str
    callback_url: str
    folder: Path


class _PendingConnection(BaseModel):
    """A connection that was started with a link and waits for the user to return. `expires_at` is in unix seconds."""

    name: str
    description: str
    expires_at: float


def authorize_url(authorization: AppAuthorization, name: str, description: str | None = None) -> str:
    """Create a link to the page on which an account authorizes the app.

    Args:
        authorization: The app, its pages and the registry.
        name: The integration that the account becomes. If it exists, the same account authorizes the app again.
        description: The integration's description. By default the existing one.

    Raises:
        IntegrationError: No app is set, the name is not valid, or the integration has an API key.
    """
    app, integrations = authorization.connections.app, authorization.connections.integrations
    if app.client_id is None:
        raise IntegrationError(
            "STRIPE_APP_CLIENT_ID is not set. It is the client id (ca_…) of your Stripe App. The receiver and the "
            "syncs also need STRIPE_APP_SECRET_KEY."
        )
    known = _find_app_integration(integrations, check_name(name))
    if description is None:
        description = known.description if known else ""
    state = secrets.token_urlsafe(_STATE_BYTES)
    pending = _PendingConnection(name=name, description=description, expires_at=time.time() + LINK_SECONDS)
    _delete_expired_links(authorization.folder)
    write_secret(_pending_path(authorization.folder, state), pending.model_dump_json())
    query = {"client_id": app.client_id, "redirect_uri": authorization.callback_url, "state": state}
    return f"{authorization.page}?{urlencode(query)}"


def connect_app(authorization: AppAuthorization, query: Mapping[str, str]) -> Integration:
    """Store the tokens and the integration of an account that has authorized the app.

    An interrupted call never blocks a later link.

    Args:
        authorization: The app, its pages and the registry.
        query: The query parameters that Stripe's page added to `callback_url`.

    Raises:
        NotConnected: The link is not valid, or Stripe did not authorize the app.
        IntegrationError: Another integration reads the account, or the name is of another account.
        NotAuthorized: STRIPE_APP_SECRET_KEY is missing or wrong.
        StripeUnavailable: Stripe gave no usable answer.
    """
    pending = _consume_link(authorization.folder, query.get("state", ""))
    again = f"Create another link: recoup connect --app --name {pending.name}"
    if query.get("error") == "access_denied":
        raise NotConnected(f"Access was denied at Stripe, so nothing was connected. {again}")
    if "error" in query or "code" not in query:
        raise NotConnected(f"Stripe could not authorize the app, so nothing was connected. {again}")
    try:
        tokens = _exchange_code(authorization.connections.app, query["code"])
    except InvalidRequest as error:
        if error.code != INVALID_GRANT:
            raise
        raise NotConnected(
            "Stripe does not accept the code of this authorization: it was already used, is older than five minutes, "
            f"or belongs to another app or mode than STRIPE_APP_SECRET_KEY. {again}"
        ) from None
    return _store_connection(authorization, pending, tokens)


def _exchange_code(app: StripeApp, code: str) -> Tokens:
    form = {"grant_type": "authorization_code", "code": code}
    grant, at = exchange(app, form, retry=CHECK_RETRY, timeout=CHECK_TIMEOUT_SECONDS)
    account_id = grant.stripe_user_id or grant.account_id
    if account_id is None:
        raise NotConnected("Stripe did not say which account this is, so nothing was connected.")
    return Tokens(
        account_id=account_id,
        livemode=resolve_livemode(app, grant),
        access_token=grant.access_token,
        refresh_token=grant.refresh_token,
        issued_at=time.time(),
        authorized_at=at,
    )


def _store_connection(authorization: AppAuthorization, pending: _PendingConnection, tokens: Tokens) -> Integration:
    """Store an authorized account. A lock ensures that two links cannot connect the same account twice."""
    with exclusive_lock(authorization.folder / ".lock"):
        connections = authorization.connections.reload()  # another link may have connected the account meanwhile
        integrations = connections.integrations
        known = _find_app_integration(integrations, pending.name)
        authorized = Integration(
            pending.name,
            None,
            "what was authorized",
            pending.description,
            tokens.account_id,
            tokens.livemode,
            is_app=True,
        )
        if known is None:
            connections.reject_known_account(authorized)
            integrations.delete_secrets(authorized.name)
        elif (known.account_id, known.livemode) != (authorized.account_id, authorized.livemode):
            raise IntegrationError(
                f"Integration {known.name!r} is {_describe_account(known)}, but this is "
                f"{_describe_account(authorized)}. To connect this account as well, choose another name: "
                "recoup connect --app --name …"
            )
        file = TokenFile(integrations.tokens_path(authorized.name))
        with file.lock():
            file.write(tokens)
        if known is None:
            integrations.add(authorized)
    return authorized


def _find_app_integration(integrations: Integrations, name: str) -> Integration | None:
    """Return the integration with this name, or None if there is none.

    Raises:
        IntegrationError: The integration has an API key.
    """
    found = next((each for each in integrations.all() if each.name == name), None)
    if found and not found.is_app:
        raise IntegrationError(f"Integration {name!r} has an API key. Choose another name for the app's.")
    return found


def _describe_account(integration: Integration) -> str:
    return f"{integration.account_id} in {'live' if integration.livemode else 'test'} mode"


def _consume_link(folder: Path, state: str) -> _PendingConnection:
    """Return the pending connection and invalidate the link.

    Raises:
        NotConnected: The link is unknown, was used, or has expired.
    """
    path = _pending_path(folder, state)
    text = read_secret(path)
    try:
        path.unlink()
        pending = _PendingConnection.model_validate_json(text or "")
    except (FileNotFoundError, ValidationError):
        raise NotConnected(
            "This link is not valid: it was already used, or was not created here. Create one: recoup connect --app"
        ) from None
    if not 0 < pending.expires_at - time.time() <= LINK_SECONDS:
        raise NotConnected(
            f"This link is older than {LINK_SECONDS // 60} minutes. Create another one: recoup connect --app --name "
            f"{pending.name}"
        )
    return pending


def _pending_path(folder: Path, state: str) -> Path:
    return folder / hashlib.sha256(state.encode()).hexdigest()


def _delete_expired_links(folder: Path) -> None:
    """Delete the links that have expired without being used."""
    for path in folder.glob("[0-9a-f]*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LINK_SECONDS:
                path.unlink()
