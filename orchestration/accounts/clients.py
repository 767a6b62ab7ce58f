"""The Stripe client of an account, and what Stripe says of the account's key."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from orchestration.accounts.oauth_tokens import AppKey, NotAuthorized
from orchestration.accounts.registry import Integration, Integrations, is_read_already
from orchestration.base.account import AccountKey
from orchestration.base.errors import RecoupError
from orchestration.config.settings import DEFAULT_INTEGRATION, Settings
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
    """Report that an integration has no API key. The text says where to put it."""


@dataclass(frozen=True)
class Connection:
    """Hold the result of a check: the account, the mode, and what the key may read."""

    account: AccountKey
    key: KeyCheck


@contextmanager
def client_of(
    settings: Settings, integration: Integration, *, retry: RetryPolicy | None = None, timeout: float = TIMEOUT_SECONDS
) -> Iterator[StripeClient]:
    """Yield a client with the integration's key, and close it at the end.

    Raises:
        KeyMissing: the integration has no key.
        AccountMismatch: the key is of the other mode.
        NotAuthorized, StripeUnavailable: as `AppKey`, for an account that authorized the Stripe App.
    """
    if integration.is_app:
        with _client_of_app(settings, integration, retry, timeout) as of_app:
            yield of_app
        return
    if integration.api_key is None:
        raise KeyMissing(
            "STRIPE_API_KEY is not set. `recoup connect` connects an account; or put a restricted key (rk_live_… or "
            f"rk_test_…) into the environment or into .env.{_orphan_keys_hint(settings)} Without a key, `recoup demo` "
            "uses a simulated account."
            if integration.name == DEFAULT_INTEGRATION
            else f"The key of integration {integration.name!r} cannot be read ({integration.key_from}). Set it again: "
            f"recoup integrations set-key {integration.name}"
        )
    if integration.livemode is not None and is_live(integration.api_key) is (not integration.livemode):
        mode, other = ("live", "test") if integration.livemode else ("test", "live")
        raise AccountMismatch(
            f"This is a {other} mode key, and integration {integration.name!r} is of {mode} mode. Use a key that "
            f"begins with rk_{mode}_; the account's {other} mode is an integration of its own: recoup connect"
        )
    client = StripeClient(
        integration.api_key,
        api_base=settings.stripe_api_base,
        retry=retry,
        timeout=timeout,
        stripe_account=integration.account_id if integration.platform else None,
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _client_of_app(
    settings: Settings, integration: Integration, retry: RetryPolicy | None, timeout: float
) -> Iterator[StripeClient]:
    key = AppKey(settings, integration.name, retry=retry, timeout=timeout)
    key()  # fails at once if the app was disconnected
    client = StripeClient(
        key, livemode=integration.livemode, api_base=settings.stripe_api_base, retry=retry, timeout=timeout
    )
    try:
        yield client
    except NotAuthorized:
        raise
    except AuthenticationFailed as refusal:
        raise key.failure(refusal, client.now) from None
    finally:
        client.close()


def _orphan_keys_hint(settings: Settings) -> str:
    """Return a hint that lists API keys set for unknown integrations."""
    names = sorted(settings.stripe_api_keys)
    if not names:
        return ""
    lines = ", ".join(f"[{name}]" for name in names)
    return f" There are keys for {', '.join(names)}: add {lines} to {settings.integrations_path}."


def check(settings: Settings, integration: Integration) -> Connection:
    """Try an integration's key at Stripe, with some twenty requests. The integration need not be stored yet.

    Raises:
        KeyMissing: the integration has no key.
        AccountMismatch: the key is of another account or mode than the integration.
        StripeApiError: as `check_resources`.
    """
    with client_of(settings, integration, retry=CHECK_RETRY, timeout=CHECK_TIMEOUT_SECONDS) as client:
        key = check_resources(client, is_platform=bool(integration.connected))
        return Connection(identify(client, stated_id=integration.account_id), key)


def discover(settings: Settings, platform: Integration) -> Sequence[ConnectedAccount]:
    """Return the connected accounts that the platform's patterns choose, newest first.

    Raises:
        KeyMissing, StripeApiError: as `check`.
    """
    with client_of(settings, platform, retry=CHECK_RETRY, timeout=CHECK_TIMEOUT_SECONDS) as client:
        return [account for account in connected_accounts(client) if account.matches(platform.connected)]


def refuse_known_account(settings: Settings, integration: Integration) -> None:
    """Check an integration before it is added or gets another key. Keys whose account is unknown are tried now.

    Raises:
        IntegrationError: another integration reads this account and mode.
    """
    integrations = Integrations(settings)
    integrations.check_account(integration)
    for other in integrations.all():
        is_known = other.account_id is not None and other.livemode is not None
        is_itself = other.name == integration.name
        if is_itself or is_known or other.api_key is None or is_live(other.api_key) is not integration.livemode:
            continue
        if integration.account_id is not None and _account_by_key(settings, other) == integration.account_id:
            raise is_read_already(other, "reads this account")


def _account_by_key(settings: Settings, integration: Integration) -> str | None:
    """Return the account id of an integration's key, or None if the key does not work: other integrations continue."""
    with (
        suppress(StripeApiError),
        client_of(settings, integration, retry=CHECK_RETRY, timeout=CHECK_TIMEOUT_SECONDS) as client,
    ):
        return identify(client, stated_id=integration.account_id).account_id
    return None
