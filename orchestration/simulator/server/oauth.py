"""A Stripe App that accounts install by OAuth: consent page, tokens, expiry and revocation.

Source: Stripe's documentation (Stripe Apps, API authentication, OAuth 2.0). A code is valid once, within five minutes.
An access token is valid for an hour, which the response does not state. A refresh token is valid for a year, and each
exchange rolls it. The format of access tokens is not documented; the format here is ours.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final
from urllib.parse import urlencode

from orchestration.simulator.server.connect import Connections
from orchestration.simulator.server.deliveries import Deliverer
from orchestration.simulator.server.errors import invalid_grant, invalid_key, unsupported_grant
from orchestration.simulator.server.keys import ApiKey, Keys
from orchestration.simulator.server.webhooks import deauthorized_event
from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.steps import token

Json = dict[str, Any]

CODE_SECONDS: Final = 300
ACCESS_TOKEN_SECONDS: Final = 3_600
REFRESH_TOKEN_SECONDS: Final = 365 * DAY
"""Seconds of the simulated clock for which a code, an access token and a refresh token are valid."""


class NoSuchApp(Exception):
    """The consent page was called with an unknown client id or redirect URI."""


@dataclass(frozen=True)
class AppOptions:
    """The settings of an app.

    Args:
        client_id: public id of the app.
        secret_key: key of the developer's account, required to exchange codes and tokens.
        redirect_uris: allowed redirect URIs. The first one is the default.
        permissions: permissions of its access tokens (`charge_read`); None for all.
    """

    client_id: str
    secret_key: str
    redirect_uris: Collection[str]
    permissions: Collection[str] | None = None


@dataclass(frozen=True)
class _Grant:
    """The account that a code or refresh token is for, and its expiry in Unix seconds."""

    account_id: str
    expires_at: int


class StripeApp:
    """The app and the accounts that have installed it. There is no app until `options` is set.

    `account_id` is the account that is signed in at the consent page: the account itself or a connected one. `denies`
    says whether it refuses consent.
    """

    def __init__(self, connections: Connections, keys: Keys, deliverer: Deliverer) -> None:
        self.options: AppOptions | None = None
        self.account_id = connections.platform.id
        self.denies = False
        self._accounts = {account.id: account for account in connections.all_accounts}
        self._clock = connections.platform.clock
        self._platform = connections.platform
        self._keys, self._deliverer = keys, deliverer
        self._codes: dict[str, _Grant] = {}
        self._refresh_tokens: dict[str, _Grant] = {}
        self._access_tokens: dict[str, str] = {}
        self._serial = count(1)

    @property
    def installed_by(self) -> list[str]:
        """Ids of the accounts that have installed the app, sorted."""
        return sorted({grant.account_id for grant in self._refresh_tokens.values()})

    def account_id_for_token(self, key: str | None) -> str | None:
        """Return the account id of an access token, even if it is invalid by now; None for any other key."""
        return self._access_tokens.get(key or "")

    def authorize(self, query: Mapping[str, str]) -> str:
        """Return the URL that the consent page redirects to, with a code or an error.

        Raises:
            NoSuchApp: unknown client id or redirect URI.
        """
        options = self.options
        if options is None or query.get("client_id") != options.client_id:
            raise NoSuchApp("No application matches the supplied client identifier")
        uri = query.get("redirect_uri") or next(iter(options.redirect_uris), "")
        if uri not in options.redirect_uris:
            raise NoSuchApp("Invalid redirect URI")
        answer = {"state": query["state"]} if "state" in query else {}
        if self.denies:
            denied = {"error": "access_denied", "error_description": "The user denied your request"}
            return f"{uri}?{urlencode(denied | answer)}"
        code = f"ac_{self._token('code')}"
        self._codes[code] = _Grant(self.account_id, self._clock.now + CODE_SECONDS)
        return f"{uri}?{urlencode({'code': code} | answer)}"

    def grant(self, key: str | None, form: Mapping[str, str]) -> Json:
        """Exchange a code or a refresh token for new tokens.

        Raises:
            StripeError: Stripe would return an error.
        """
        if self.options is None or key != self.options.secret_key:
            raise invalid_key(key or "")
        match form.get("grant_type"):
            case "authorization_code":
                granted = self._consume(self._codes, form.get("code", ""), "Authorization code")
                return self._tokens(granted.account_id) | {"stripe_user_id": granted.account_id}
            case "refresh_token":
                granted = self._consume(self._refresh_tokens, form.get("refresh_token", ""), "Refresh token")
                return self._tokens(granted.account_id)
            case other:
                raise unsupported_grant(other)

    def deauthorize(self, account_id: str) -> None:
        """Uninstall the app from an account: revoke its tokens, and send the event to endpoints with `connect`.

        Raises:
            KeyError: the account has not installed the app.
        """
        if account_id not in self.installed_by or self.options is None:
            raise KeyError(account_id)
        self._codes, self._refresh_tokens = (
            {token: grant for token, grant in grants.items() if grant.account_id != account_id}
            for grants in (self._codes, self._refresh_tokens)
        )
        for key, owner in self._access_tokens.items():
            if owner == account_id:
                self._keys.issue(key, replace(self._keys.known()[key], state="revoked"))
        account = self._accounts[account_id]
        self._deliverer.announce(deauthorized_event(account, self._platform, client_id=self.options.client_id))

    def _consume(self, grants: dict[str, _Grant], given: str, what: str) -> _Grant:
        """Return the grant of a code or token, and invalidate it."""
        found = grants.pop(given, None)
        if found is None:
            raise invalid_grant(f"{what} does not exist: {given}")
        if found.expires_at <= self._clock.now:
            raise invalid_grant(f"{what} expired: {given}")
        return found

    def _tokens(self, account_id: str) -> Json:
        assert self.options is not None
        access_token, refresh_token = f"at_{self._token('access')}", f"rt_{self._token('refresh')}"
        permissions = self.options.permissions
        api_key = ApiKey(permissions, permissions, expires_at=self._clock.now + ACCESS_TOKEN_SECONDS)
        self._keys.issue(access_token, api_key)
        self._access_tokens[access_token] = account_id
        self._refresh_tokens[refresh_token] = _Grant(account_id, self._clock.now + REFRESH_TOKEN_SECONDS)
        mode = "live" if self._platform.livemode else "test"
        return {
            "access_token": access_token,
            "livemode": self._platform.livemode,
            "refresh_token": refresh_token,
            "scope": "stripe_apps",
            "stripe_publishable_key": f"pk_{mode}_{token(account_id, 'publishable')}",
            "token_type": "bearer",
        }

    def _token(self, kind: str) -> str:
        return token(self._platform.id, kind, next(self._serial))
