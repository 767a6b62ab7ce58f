"""Stripe clients for integrations, and checks of their keys at Stripe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from orchestration.accounts.oauth_tokens import AppKey, NotAuthorized, StripeApp, TokenFile
from orchestration.accounts.registry import Integration, Integrations, already_connected_error
from orchestration.base.account import DEFAULT_INTEGRATION, AccountKey
from orchestration.base.errors import RecoupError
from orchestration.stripe_api import (
    CHECK_RETRY,
    CHECK_TIMEOUT_SECONDS,
    TIMEOUT_SECONDS,
    AuthenticationFailed,
    ConnectedAccount,
    KeyCheck,
    RetryPolicy,
    StripeApiError,
    StripeClient,
    check_resources,
    connected_accounts,
    is_live,
)
from orchestration.stripe_api.identity import AccountMismatch, identify


class KeyMissing(RecoupError):
    """An integration without an API key. The text says where to set it."""


@dataclass(frozen=True)
class Connection:
    """The result of a check: the account, its mode, and what its key may read."""

    account: AccountKey
    key: KeyCheck


@dataclass(frozen=True)
class StripeConnections:
    """The connections to Stripe of a data folder: opens clients for integrations, and checks their keys.

    Attributes:
        integrations: The registry, which also knows where the tokens of the Stripe App are.
        app: The Stripe App.
        api_base: The address of the Stripe API.
    """

    integrations: Integrations
    app: StripeApp
    api_base: str

    def reload(self) -> "StripeConnections":
        """Return connections whose registry reads `integrations.toml` again."""
        return replace(self, integrations=self.integrations.reload())

    @contextmanager
    def open(
        self, integration: Integration, *, retry: RetryPolicy | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> Iterator[StripeClient]:
        """Yield a Stripe client that uses the integration's key, and close it when the context ends.

        Args:
            integration: The account to read. It need not be stored.
            retry: How failed requests are repeated. None means the default of `StripeClient`.
            timeout: Seconds to wait for an answer.

        Raises:
            KeyMissing: The integration has no key.
            AccountMismatch: The key is of the other mode.
            NotAuthorized: The account no longer authorizes the Stripe App.
            StripeUnavailable: The app's token could not be renewed.
        """
        if integration.is_app:
            with self._open_app_client(integration, retry, timeout) as app_client:
                yield app_client
            return
        if integration.api_key is None:
            raise _missing_key_error(integration, self.integrations)
        if integration.livemode is not None and is_live(integration.api_key) is (not integration.livemode):
            raise _wrong_mode_error(integration)
        client = StripeClient(
            integration.api_key,
            api_base=self.api_base,
            retry=retry,
            timeout=timeout,
            stripe_account=integration.account_id if integration.platform else None,
        )
        try:
            yield client
        finally:
            client.close()

    def app_key(self, name: str, *, retry: RetryPolicy | None = None, timeout: float = TIMEOUT_SECONDS) -> AppKey:
        """Return the renewable access token of an integration that authorized the Stripe App."""
        file = TokenFile(self.integrations.tokens_path(name))
        return AppKey(self.app, name, file, retry=retry, timeout=timeout)

    @contextmanager
    def _open_app_client(
        self, integration: Integration, retry: RetryPolicy | None, timeout: float
    ) -> Iterator[StripeClient]:
        key = self.app_key(integration.name, retry=retry, timeout=timeout)
        key()  # raises at once if the app was disconnected
        client = StripeClient(key, livemode=integration.livemode, api_base=self.api_base, retry=retry, timeout=timeout)
        try:
            yield client
        except NotAuthorized:
            raise
        except AuthenticationFailed as rejection:
            raise key.rejection_error(rejection, client.now) from None
        finally:
            client.close()

    def check(self, integration: Integration) -> Connection:
        """Try an integration's key at Stripe with about twenty requests. The integration need not be stored.

        Raises:
            KeyMissing: The integration has no key.
            AccountMismatch: The key is of another account or mode than the integration.
            StripeApiError: As `check_resources`.
        """
        with self.open(integration, retry=CHECK_RETRY, timeout=CHECK_TIMEOUT_SECONDS) as client:
            key = check_resources(client, is_platform=bool(integration.connected))
            return Connection(identify(client, stated_id=integration.account_id), key)

    def discover(self, platform: Integration) -> Sequence[ConnectedAccount]:
        """Return the connected accounts that match the platform's patterns, newest first.

        Raises:
            KeyMissing: The platform has no key.
            StripeApiError: As `check`.
        """
        with self.open(platform, retry=CHECK_RETRY, timeout=CHECK_TIMEOUT_SECONDS) as client:
            return [account for account in connected_accounts(client) if account.matches(platform.connected)]

    def reject_known_account(self, integration: Integration) -> None:
        """Check that no other integration reads the same account and mode, as of now.

        The keys of integrations whose account is not known yet are tried at Stripe.

        Raises:
            IntegrationError: Another integration reads this account and mode.
        """
        integrations = self.integrations.reload()
        integrations.check_account(integration)
        for other in integrations.all():
            is_known = other.account_id is not None and other.livemode is not None
            is_same = other.name == integration.name
            if is_same or is_known or other.api_key is None or is_live(other.api_key) is not integration.livemode:
                continue
            if integration.account_id is not None and self._account_id(other) == integration.account_id:
                raise already_connected_error(other, "reads this account")

    def _account_id(self, integration: Integration) -> str | None:
        """Return the account id of an integration's key, or None if the key does not work."""
        with (
            suppress(StripeApiError),
            self.open(integration, retry=CHECK_RETRY, timeout=CHECK_TIMEOUT_SECONDS) as client,
        ):
            return identify(client, stated_id=integration.account_id).account_id
        return None


def _missing_key_error(integration: Integration, integrations: Integrations) -> KeyMissing:
    if integration.name != DEFAULT_INTEGRATION:
        return KeyMissing(
            f"The key of integration {integration.name!r} cannot be read ({integration.key_source}). Set it again: "
            f"recoup integrations set-key {integration.name}"
        )
    return KeyMissing(
        "STRIPE_API_KEY is not set. `recoup connect` connects an account; or put a restricted key (rk_live_… or "
        f"rk_test_…) into the environment or into .env.{_orphan_keys_hint(integrations)} Without a key, `recoup demo` "
        "uses a simulated account."
    )


def _wrong_mode_error(integration: Integration) -> AccountMismatch:
    mode, other = ("live", "test") if integration.livemode else ("test", "live")
    return AccountMismatch(
        f"This is a {other} mode key, but integration {integration.name!r} is in {mode} mode. Use a key that begins "
        f"with rk_{mode}_, or connect the account's {other} mode as another integration: recoup connect"
    )


def _orphan_keys_hint(integrations: Integrations) -> str:
    """Return a hint that lists API keys set for unknown integrations."""
    names = integrations.configured_names
    if not names:
        return ""
    lines = ", ".join(f"[{name}]" for name in names)
    return f" There are keys for {', '.join(names)}: add {lines} to {integrations.path}."
