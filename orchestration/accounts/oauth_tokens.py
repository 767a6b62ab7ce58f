"""The tokens by which the accounts that authorized the Stripe App are read: one file each, renewed in time.

An access token lives an hour, a refresh token a year, and each exchange rolls both (Stripe Apps, OAuth 2.0). A pair
is stored before it is used, and one process at a time renews it. Belongs here: the tokens once there are some. Does
not: how an account authorizes the app (`oauth_flow`).
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_serializer

from orchestration.accounts.registry import Integrations, tokens_path
from orchestration.base.files import read_secret, write_secret
from orchestration.base.locks import exclusive_lock
from orchestration.config.settings import Settings
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

RENEW_AFTER: Final = 50 * 60
"""Seconds after which an access token is renewed, ten minutes before it ends. Stripe does not say when it does."""

DEAUTHORIZED: Final = "account.application.deauthorized"
"""The event of an account that has uninstalled an app."""

INVALID_GRANT: Final = "invalid_grant"
"""Stripe's word for a code or a refresh token that is unknown, used, too old, or of another app."""

_TOKEN_ENDPOINT: Final = "/v1/oauth/token"


class NotAuthorized(AuthenticationFailed):
    """An account cannot be read by the Stripe App, or no longer. The text says what to do."""


class Tokens(BaseModel):
    """What Stripe gave for an account. As JSON it shows its secrets: for the file alone.

    `issued_at` is an instant of this machine's clock, which tells how old the access token is. The others are
    Stripe's, as its events are.
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
        """Whether the access token has some time left; not if this machine's clock was set back meanwhile."""
        return 0 <= time.time() - self.issued_at < RENEW_AFTER

    @field_serializer("access_token", "refresh_token", when_used="json")
    def _for_the_file(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class Grant(BaseModel):
    """Stripe's answer to a code or a refresh token. The account is named in either way, or not at all."""

    access_token: SecretStr
    refresh_token: SecretStr
    livemode: bool | None = None
    stripe_user_id: str | None = None
    account_id: str | None = None


class TokenFile:
    """The tokens of one integration, on disk. Whoever reads them to change them holds the lock."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._path = tokens_path(settings, name)
        self._lock_path = self._path.with_suffix(".lock")

    def lock(self) -> Any:
        """A context that one thread of one process is in at a time."""
        return exclusive_lock(self._lock_path)

    def read(self) -> Tokens | None:
        """The tokens; None where there are none, or none that can be read."""
        try:
            return Tokens.model_validate_json(read_secret(self._path) or "")
        except ValidationError:
            return None

    def write(self, tokens: Tokens) -> None:
        """Keep these instead."""
        write_secret(self._path, tokens.model_dump_json())


class AppKey:
    """A `KeySource`: the access token of an integration, for any number of threads."""

    def __init__(
        self, settings: Settings, name: str, *, retry: RetryPolicy | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        self._settings, self._name, self._retry, self._timeout = settings, name, retry, timeout
        self._file = TokenFile(settings, name)
        self._known: Tokens | None = None

    def __call__(self, refused: SecretStr | None = None) -> SecretStr:
        """The token; another one than `refused`, and one that was renewed if it would end soon.

        Raises:
            NotAuthorized: there is none any more.
            StripeUnavailable: it cannot be renewed now.
            OSError: it cannot be stored. Stripe was not asked, or the tokens are lost.
        """
        known = self._known
        if known is None or not known.is_fresh or known.access_token == refused:
            known = self._known = self._current(refused)
        return known.access_token

    def failure(self, refusal: AuthenticationFailed, at: int) -> AuthenticationFailed:
        """What to tell of a refusal of Stripe's (`at` on its clock). One that says so ends the authorization."""
        if refusal.fault == "revoked":
            with self._file.lock():
                stored = self._file.read()
                if stored and self._known and stored.access_token == self._known.access_token:
                    self._file.write(stored.model_copy(update={"disconnected_at": at}))
            return self._disconnected(at)
        return self._lost() if refusal.fault in ("expired", "wrong_key") else refusal

    def _current(self, refused: SecretStr | None) -> Tokens:
        """What is stored, by another process perhaps, and renewed if that does not do."""
        with self._file.lock():
            stored = self._file.read()
            if stored is None:
                raise self._not_authorized(f"There are no tokens of integration {self._name!r}", "wrong_key")
            if stored.disconnected_at is not None:
                raise self._disconnected(stored.disconnected_at)
            if stored.is_fresh and stored.access_token != refused:
                return stored
            return self._renewed(stored)

    def _renewed(self, stored: Tokens) -> Tokens:
        self._file.write(stored)  # a full disk shows here, before Stripe has rolled anything
        form = {"grant_type": "refresh_token", "refresh_token": stored.refresh_token.get_secret_value()}
        try:
            grant, _ = exchange(self._settings, form, retry=self._retry, timeout=self._timeout)
        except InvalidRequest as error:
            raise (self._lost() if error.code == INVALID_GRANT else error) from None
        renewed = stored.model_copy(
            update={
                "access_token": grant.access_token,
                "refresh_token": grant.refresh_token,
                "issued_at": time.time(),
            }
        )
        self._file.write(renewed)
        return renewed

    def _disconnected(self, at: int) -> NotAuthorized:
        day = time.strftime("%Y-%m-%d", time.gmtime(at))
        return self._not_authorized(f"Integration {self._name!r} was disconnected at Stripe on {day}", "revoked")

    def _lost(self) -> NotAuthorized:
        return self._not_authorized(
            f"Stripe no longer takes the tokens of integration {self._name!r}, as after a run that was killed while it "
            "renewed them, after a year, or after the app was uninstalled",
            "expired",
        )

    def _not_authorized(self, why: str, fault: Fault) -> NotAuthorized:
        return NotAuthorized(f"{why}: authorize again: recoup connect --app --name {self._name}", fault=fault)


def exchange(
    settings: Settings, form: Mapping[str, str], *, retry: RetryPolicy | None = None, timeout: float = TIMEOUT_SECONDS
) -> tuple[Grant, int]:
    """What Stripe gives for a code or a refresh token, and when, on its clock.

    A try whose answer is lost is repeated: at worst, Stripe has rolled the token and says so.

    Raises:
        NotAuthorized: STRIPE_APP_SECRET_KEY is missing or wrong.
        InvalidRequest: as Stripe's `code` says, such as `INVALID_GRANT`.
        StripeUnavailable: no usable answer.
    """
    key = settings.stripe_app_secret_key
    if key is None:
        raise NotAuthorized(
            "STRIPE_APP_SECRET_KEY is not set. Stripe gives tokens only to the account that made the app: set its "
            "secret key.",
            fault="wrong_key",
        )
    client = StripeClient(key, api_base=settings.stripe_api_base, retry=retry, timeout=timeout)
    try:
        answer = client.post(_TOKEN_ENDPOINT, form)
    except AuthenticationFailed:
        raise NotAuthorized(
            "Stripe does not accept STRIPE_APP_SECRET_KEY. Check that it is whole, and of the account that made the "
            "app.",
            fault="wrong_key",
        ) from None
    finally:
        client.close()
    return _grant(answer.body), answer.read_no_later_than


def livemode_of(settings: Settings, grant: Grant) -> bool:
    """The mode: as Stripe says it, else as the app's key tells it, which is good for one mode only."""
    if grant.livemode is not None:
        return grant.livemode
    assert settings.stripe_app_secret_key is not None
    return bool(is_live(settings.stripe_app_secret_key))


def note_deauthorized(settings: Settings, event: Mapping[str, Any]) -> None:
    """Note from Stripe's event (`DEAUTHORIZED`) that an account has uninstalled the app.

    It may come late, and again: what an account has authorized since stands.
    """
    if event["data"]["object"]["id"] != settings.app_client_id:
        return
    for integration in Integrations(settings).all():
        is_of_it = (integration.account_id, integration.livemode) == (event.get("account"), event["livemode"])
        if integration.is_app and is_of_it:
            file = TokenFile(settings, integration.name)
            with file.lock():
                stored = file.read()
                if stored and stored.disconnected_at is None and event["created"] > stored.authorized_at:
                    file.write(stored.model_copy(update={"disconnected_at": event["created"]}))


def _grant(body: Mapping[str, Any]) -> Grant:
    try:
        return Grant.model_validate(body)
    except ValidationError:  # whose text has the tokens in it
        raise StripeUnavailable(
            f"Stripe's answer to POST {_TOKEN_ENDPOINT} has no tokens.", fault="not_stripe"
        ) from None
