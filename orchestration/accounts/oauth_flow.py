"""How an account authorizes the Stripe App: the link to Stripe's page, and what is done when its user comes back.

A link is good once and for ten minutes, and for one integration. What its `state` stands for is kept under the hash
of it, so that no file can be made into a link.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from orchestration.accounts.clients import refuse_known_account
from orchestration.accounts.oauth_tokens import INVALID_GRANT, TokenFile, Tokens, exchange, livemode_of
from orchestration.accounts.registry import Integration, IntegrationError, Integrations, check_name
from orchestration.base.errors import RecoupError
from orchestration.base.files import read_secret, write_secret
from orchestration.base.locks import exclusive_lock
from orchestration.config.settings import Settings
from orchestration.stripe_api import CHECK_RETRY, CHECK_TIMEOUT_SECONDS, InvalidRequest

CALLBACK_PATH: Final = "/oauth/stripe/callback"

LINK_SECONDS: Final = 600
"""How long a link is good."""

_STATE_BYTES: Final = 32


class NotConnected(RecoupError):
    """Nothing was connected. The text says why, and what to do."""


class _Pending(BaseModel):
    """What a link is for."""

    name: str
    description: str
    expires_at: float


def callback_url(settings: Settings) -> str:
    """Where Stripe sends its user back to. It must be among the app's `allowed_redirect_uris`, letter by letter."""
    return settings.recoup_webhook_base_url + CALLBACK_PATH


def authorize_url(settings: Settings, name: str, description: str | None = None) -> str:
    """A link to the page where an account agrees to the app, to become the integration of that name; or, if it is that
    already, to authorize it again.

    Raises:
        IntegrationError: there is no app, or the name is another integration's.
    """
    if settings.app_client_id is None:
        raise IntegrationError(
            "STRIPE_APP_CLIENT_ID is not set. It is the client id (ca_…) of your Stripe App. Where the receiver and "
            "the syncs run, STRIPE_APP_SECRET_KEY goes with it."
        )
    known = _known(settings, check_name(name))
    if description is None:
        description = known.description if known else ""
    state = secrets.token_urlsafe(_STATE_BYTES)
    pending = _Pending(name=name, description=description, expires_at=time.time() + LINK_SECONDS)
    _forget_old(settings.authorizations_dir)
    write_secret(_path(settings, state), pending.model_dump_json())
    query = {"client_id": settings.app_client_id, "redirect_uri": callback_url(settings), "state": state}
    return f"{settings.app_page}?{urlencode(query)}"


def connect_app(settings: Settings, query: Mapping[str, str]) -> Integration:
    """Keep what an account has agreed to: its tokens, and the integration. `query` is what Stripe's page sent along.

    Killed at any instruction it leaves nothing that is in the way of another link.

    Raises:
        NotConnected, IntegrationError: as they say.
        NotAuthorized, StripeUnavailable: as `exchange`.
    """
    pending = _taken(settings, query.get("state", ""))
    again = f"For another link: recoup connect --app --name {pending.name}"
    if query.get("error") == "access_denied":
        raise NotConnected(f"Access was denied at Stripe, so nothing was connected. {again}")
    if "error" in query or "code" not in query:
        raise NotConnected(f"Stripe could not authorize it, so nothing was connected. {again}")
    try:
        tokens = _exchanged(settings, query["code"])
    except InvalidRequest as error:
        if error.code != INVALID_GRANT:
            raise
        raise NotConnected(
            "Stripe does not accept the code of this authorization: it was used already, is older than five minutes, "
            f"or STRIPE_APP_SECRET_KEY is not of the app and mode that made it. {again}"
        ) from None
    return _keep(settings, pending, tokens)


def _exchanged(settings: Settings, code: str) -> Tokens:
    form = {"grant_type": "authorization_code", "code": code}
    grant, at = exchange(settings, form, retry=CHECK_RETRY, timeout=CHECK_TIMEOUT_SECONDS)
    account_id = grant.stripe_user_id or grant.account_id
    if account_id is None:
        raise NotConnected("Stripe did not say which account this is, so nothing was connected.")
    return Tokens(
        account_id=account_id,
        livemode=livemode_of(settings, grant),
        access_token=grant.access_token,
        refresh_token=grant.refresh_token,
        issued_at=time.time(),
        authorized_at=at,
    )


def _keep(settings: Settings, pending: _Pending, tokens: Tokens) -> Integration:
    """One authorization at a time, so that two links cannot connect one account twice."""
    with exclusive_lock(settings.authorizations_dir / ".lock"):
        known = _known(settings, pending.name)
        found = Integration(
            pending.name,
            None,
            "what was authorized",
            pending.description,
            tokens.account_id,
            tokens.livemode,
            is_app=True,
        )
        if known is None:
            refuse_known_account(settings, found)
            Integrations(settings).forget_secrets(found.name)
        elif (known.account_id, known.livemode) != (found.account_id, found.livemode):
            raise IntegrationError(
                f"Integration {known.name!r} is of {_account(known)}, and this is {_account(found)}. To connect it as "
                "well, choose another name: recoup connect --app --name …"
            )
        file = TokenFile(settings, found.name)
        with file.lock():
            file.write(tokens)
        if known is None:
            Integrations(settings).add(found)
    return found


def _known(settings: Settings, name: str) -> Integration | None:
    """The integration of that name. Raises IntegrationError where it has a key instead of the app."""
    found = next((each for each in Integrations(settings).all() if each.name == name), None)
    if found and not found.is_app:
        raise IntegrationError(f"Integration {name!r} has an API key. Choose another name for the app's.")
    return found


def _account(integration: Integration) -> str:
    return f"{integration.account_id} in {'live' if integration.livemode else 'test'} mode"


def _taken(settings: Settings, state: str) -> _Pending:
    """What the link was for. Nobody can take it again."""
    path = _path(settings, state)
    text = read_secret(path)
    try:
        path.unlink()
        pending = _Pending.model_validate_json(text or "")
    except (FileNotFoundError, ValidationError):
        raise NotConnected(
            "This link is not known here: it was used already, or it was not made here. For one: recoup connect --app"
        ) from None
    if not 0 < pending.expires_at - time.time() <= LINK_SECONDS:
        raise NotConnected(
            f"This link is older than {LINK_SECONDS // 60} minutes. For another one: recoup connect --app --name "
            f"{pending.name}"
        )
    return pending


def _path(settings: Settings, state: str) -> Path:
    return settings.authorizations_dir / hashlib.sha256(state.encode()).hexdigest()


def _forget_old(folder: Path) -> None:
    """Links that nobody came back from."""
    for path in folder.glob("[0-9a-f]*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LINK_SECONDS:
                path.unlink()
