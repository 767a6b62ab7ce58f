"""OAuth tokens of the accounts that authorized the Stripe App: stored in one file each, renewed in time.

An access token is valid for one hour and a refresh token for one year. Each exchange rolls both (Stripe's documentation
of Stripe Apps, OAuth 2.0). A new pair is stored before it is used, and one process at a time renews it. How an account
authorizes the app is in `oauth_flow`.
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_serializer

from orchestration.accounts.registry import Integrations
from orchestration.base.files import read_secret, write_secret
from orchestration.base.locks import exclusive_lock
from orchestration.stripe_api import (
    TIMEOUT_SECONDS,
    AuthenticationFailed,
    Fault,
    InvalidRequest,
    RetryPolicy,
    StripeClient,
    StripeUnavailable,
    is_live,
)

RENEW_AFTER_SECONDS: Final = 50 * 60
"""Age at which an access token is renewed, ten minutes before it expires. Stripe's answer has no expiry date."""

DEAUTHORIZED_EVENT: Final = "account.application.deauthorized"
"""Type of the event that Stripe sends when an account uninstalls an app."""

INVALID_GRANT: Final = "invalid_grant"
"""Stripe's error code for a code or refresh token that is unknown, used, expired, or of another app."""

_TOKEN_ENDPOINT: Final = "/v1/oauth/token"


class NotAuthorized(AuthenticationFailed):
    """An account that the Stripe App cannot read, or can no longer read. The text says what to do."""


@dataclass(frozen=True)
class StripeApp:
    """The Stripe App, which accounts authorize instead of creating a key.

    Attributes:
        client_id: The client id (ca_…), or None if no app is set.
        secret_key: The secret key of the account that created the app, or None if it is not set.
        api_base: The address of the Stripe API.
    """

    client_id: str | None
    secret_key: SecretStr | None
    api_base: str


class Tokens(BaseModel):
    """The tokens of one account. Its JSON contains the secrets and is meant only for the token file.

    Attributes:
        account_id: The Stripe account's id.
        livemode: Whether the tokens belong to live mode.
        access_token: The key for requests.
        refresh_token: What Stripe exchanges for new tokens.
        issued_at: Unix seconds on this machine's clock, from which the token's age is computed.
        authorized_at: Unix seconds on Stripe's clock, to compare with its events.
        disconnected_at: Unix seconds on Stripe's clock, or None while the account authorizes the app.
    """

    model_config = ConfigDict(frozen=True)

    account_id: str
    livemode: bool
    access_token: SecretStr
    refresh_token: SecretStr
    issued_at: float
    authorized_at: int
    disconnected_at: int | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the access token need not be renewed yet. It is False if this machine's clock was set back."""
        return 0 <= time.time() - self.issued_at < RENEW_AFTER_SECONDS

    @field_serializer("access_token", "refresh_token", when_used="json")
    def _reveal(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class Grant(BaseModel):
    """Stripe's answer to a code or refresh token. The account is in `stripe_user_id` or `account_id`, if at all."""

    access_token: SecretStr
    refresh_token: SecretStr
    livemode: bool | None = None
    stripe_user_id: str | None = None
    account_id: str | None = None


class TokenFile:
    """The file with the tokens of one integration. Hold the lock to read the tokens and then change them."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock_path = path, path.with_suffix(".lock")

    def lock(self) -> AbstractContextManager[None]:
        """Hold the file's lock while the context is open. Other threads and processes wait."""
        return exclusive_lock(self._lock_path)

    def read(self) -> Tokens | None:
        """Return the tokens, or None if the file is missing or damaged."""
        try:
            return Tokens.model_validate_json(read_secret(self._path) or "")
        except ValidationError:
            return None

    def write(self, tokens: Tokens) -> None:
        """Replace the tokens."""
        write_secret(self._path, tokens.model_dump_json())


class AppKey:
    """A `KeySource` that supplies the access token of an integration and renews it. It is thread-safe."""

    def __init__(
        self,
        app: StripeApp,
        name: str,
        file: TokenFile,
        *,
        retry: RetryPolicy | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._app, self._name, self._file, self._retry, self._timeout = app, name, file, retry, timeout
        self._known: Tokens | None = None

    def __call__(self, refused: SecretStr | None = None) -> SecretStr:
        """Return a valid access token. It is renewed first if it expires soon.

        Args:
            refused: A token that Stripe did not accept. Another one is returned.

        Raises:
            NotAuthorized: The account no longer authorizes the app.
            StripeUnavailable: The token cannot be renewed now.
            OSError: The token file cannot be written. Before the request to Stripe, nothing is lost. After it, the new
                tokens are lost, and the account must authorize the app again.
        """
        known = self._known
        if known is None or not known.is_fresh or known.access_token == refused:
            known = self._known = self._load_or_renew(refused)
        return known.access_token

    def rejection_error(self, rejection: AuthenticationFailed, at: int) -> AuthenticationFailed:
        """Build the error for a rejection by Stripe. A revocation also ends the stored authorization.

        Args:
            rejection: Stripe's answer.
            at: Unix seconds of the answer on Stripe's clock.
        """
        if rejection.fault == "revoked":
            with self._file.lock():
                stored = self._file.read()
                if stored and self._known and stored.access_token == self._known.access_token:
                    self._file.write(stored.model_copy(update={"disconnected_at": at}))
            return self._disconnected_error(at)
        return self._lost_error() if rejection.fault in ("expired", "wrong_key") else rejection

    def _load_or_renew(self, refused: SecretStr | None) -> Tokens:
        """Return the stored tokens, which another process may have renewed, or renew them now."""
        with self._file.lock():
            stored = self._file.read()
            if stored is None:
                raise self._not_authorized_error(f"There are no tokens of integration {self._name!r}", "wrong_key")
            if stored.disconnected_at is not None:
                raise self._disconnected_error(stored.disconnected_at)
            if stored.is_fresh and stored.access_token != refused:
                return stored
            return self._renew(stored)

    def _renew(self, stored: Tokens) -> Tokens:
        self._file.write(stored)  # on a full disk this fails, before Stripe rolls the tokens
        form = {"grant_type": "refresh_token", "refresh_token": stored.refresh_token.get_secret_value()}
        try:
            grant, _ = exchange(self._app, form, retry=self._retry, timeout=self._timeout)
        except InvalidRequest as error:
            raise (self._lost_error() if error.code == INVALID_GRANT else error) from None
        renewed = stored.model_copy(
            update={
                "access_token": grant.access_token,
                "refresh_token": grant.refresh_token,
                "issued_at": time.time(),
            }
        )
        self._file.write(renewed)
        return renewed

    def _disconnected_error(self, at: int) -> NotAuthorized:
        day = time.strftime("%Y-%m-%d", time.gmtime(at))
        return self._not_authorized_error(f"Integration {self._name!r} was disconnected at Stripe on {day}", "revoked")

    def _lost_error(self) -> NotAuthorized:
        return self._not_authorized_error(
            f"Stripe no longer accepts the tokens of integration {self._name!r}, because they are a year old, the app "
            "was uninstalled, or a run was killed while it renewed them",
            "expired",
        )

    def _not_authorized_error(self, why: str, fault: Fault) -> NotAuthorized:
        return NotAuthorized(f"{why}. Authorize it again: recoup connect --app --name {self._name}", fault=fault)


def exchange(
    app: StripeApp, form: Mapping[str, str], *, retry: RetryPolicy | None = None, timeout: float = TIMEOUT_SECONDS
) -> tuple[Grant, int]:
    """Exchange a code or a refresh token at Stripe for new tokens.

    The request is repeated if its answer is lost. At worst, Stripe has already rolled the token and says so.

    Returns:
        The tokens, and the unix seconds of the answer on Stripe's clock.

    Raises:
        NotAuthorized: STRIPE_APP_SECRET_KEY is missing or wrong.
        InvalidRequest: Stripe refuses the code or token. `code` is Stripe's error code, such as `INVALID_GRANT`.
        StripeUnavailable: There is no usable answer.
    """
    if app.secret_key is None:
        raise NotAuthorized(
            "STRIPE_APP_SECRET_KEY is not set. Stripe gives tokens only to the account that created the app: set its "
            "secret key.",
            fault="wrong_key",
        )
    client = StripeClient(app.secret_key, api_base=app.api_base, retry=retry, timeout=timeout)
    try:
        answer = client.post(_TOKEN_ENDPOINT, form)
    except AuthenticationFailed:
        raise NotAuthorized(
            "Stripe does not accept STRIPE_APP_SECRET_KEY. Check that it is complete and belongs to the account that "
            "created the app.",
            fault="wrong_key",
        ) from None
    finally:
        client.close()
    return _parse_grant(answer.body), answer.read_no_later_than


def resolve_livemode(app: StripeApp, grant: Grant) -> bool:
    """Return whether a grant is of live mode. If Stripe's answer does not say, the mode of the app's key counts."""
    if grant.livemode is not None:
        return grant.livemode
    assert app.secret_key is not None
    return bool(is_live(app.secret_key))


def record_deauthorization(integrations: Integrations, app: StripeApp, event: Mapping[str, Any]) -> None:
    """Record that an account has uninstalled the app, from Stripe's event (`DEAUTHORIZED_EVENT`).

    The event may arrive late or twice. It has no effect if the account has authorized the app again since then.
    """
    if event["data"]["object"]["id"] != app.client_id:
        return
    for integration in integrations.all():
        is_same_account = (integration.account_id, integration.livemode) == (event.get("account"), event["livemode"])
        if integration.is_app and is_same_account:
            file = TokenFile(integrations.tokens_path(integration.name))
            with file.lock():
                stored = file.read()
                if stored and stored.disconnected_at is None and event["created"] > stored.authorized_at:
                    file.write(stored.model_copy(update={"disconnected_at": event["created"]}))


def _parse_grant(body: Mapping[str, Any]) -> Grant:
    try:
        return Grant.model_validate(body)
    except ValidationError:  # its text contains the tokens
        raise StripeUnavailable(
            f"Stripe's answer to POST {_TOKEN_ENDPOINT} has no tokens.", fault="not_stripe"
        ) from None
