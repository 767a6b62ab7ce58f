"""API keys of the account: their permissions and their states. `api` reads the key of a request."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from orchestration.simulator.server.errors import (
    context_required,
    expired_key,
    invalid_key,
    ip_refused,
    missing_permission,
    no_access,
    no_connect_permissions,
    no_key,
    publishable_key,
)

KeyState = Literal["active", "expired", "ip_refused", "revoked"]

DEFAULT_API_KEY: Final = "rk_test_simulated_account_reads_everything"
DEFAULT_LIVE_API_KEY: Final = "rk_live_simulated_account_reads_everything"
"""Keys that may read everything of a simulated account, and are useless elsewhere."""

READ_PERMISSION: Final = {
    "account": "rak_accounts_kyc_id_numbers_read",
    # all core resources
    "balance": "rak_balance_read",
    "balance_transactions": "rak_balance_transaction_source_read",
    "charges": "rak_charge_read",
    "customers": "rak_customer_read",
    "disputes": "rak_dispute_read",
    "events": "rak_event_read",
    "files": "rak_file_read",
    "payment_intents": "rak_payment_intent_read",
    "payment_methods": "rak_payment_method_read",
    "payouts": "rak_payout_read",
    "products": "rak_product_read",
    "refunds": "rak_charge_read",
    "setup_intents": "rak_setup_intent_read",
    # all Connect resources
    "accounts": "rak_connected_account_read",
    "application_fees": "rak_application_fee_read",
    "topups": "rak_top_up_read",
    "transfers": "rak_transfer_read",
    # all Reporting resources
    "reporting/report_runs": "rak_report_runs_and_report_types_read",
    "reporting/report_types": "rak_report_runs_and_report_types_read",
    # in no group
    "invoice_payments": "rak_invoice_read",
    "webhook_endpoints": "rak_webhook_read",
}
"""Permission that a restricted key needs to read each resource, by the groups of Stripe's form for keys.

The names are those in Stripe's 403 or, if none was seen, those in the permissions reference of Stripe Apps. Tokens are
missing, since they have no list.
"""


@dataclass(frozen=True)
class ApiKey:
    """The permissions and the state of an API key.

    Args:
        permissions: names such as `charge_read` or `rak_charge_read`; None for all.
        connect_permissions: the same for connected accounts. By default, Stripe gives a restricted key none.
        state: `expired` includes rolled keys, `ip_refused` means limited to other IP addresses, and `revoked` means
            without access to the account.
        expires_at: time of expiry in Unix seconds of the account's clock; None for never.

    Raises:
        ValueError: unknown state, or permissions that are not a list.
    """

    permissions: Collection[str] | None = None
    connect_permissions: Collection[str] | None = ()
    state: KeyState = "active"
    expires_at: int | None = None

    def __post_init__(self) -> None:
        if self.state not in get_args(KeyState):
            raise ValueError(f"unknown state of a key: {self.state}")
        if isinstance(self.permissions, str) or isinstance(self.connect_permissions, str):
            raise ValueError("permissions must be a list of names, or null for all")

    def has_permission(self, permission: str, *, on_connected: bool) -> bool:
        """Return whether the key has a permission, given by its name in Stripe's 403."""
        granted = self.connect_permissions if on_connected else self.permissions
        return granted is None or permission in granted or permission.removeprefix("rak_") in granted


class Keys:
    """The API keys of an account.

    Args:
        account_id: id of the account.
        livemode: whether the account is in live mode.
        known: the `ApiKey` of each key, or only its permissions; None for all, also on connected accounts. By default
            there is one key: `DEFAULT_API_KEY`, or `DEFAULT_LIVE_API_KEY` for an account in live mode.

    Raises:
        ValueError: a key is of the other mode.
    """

    def __init__(
        self, account_id: str, *, livemode: bool, known: Mapping[str, ApiKey | Iterable[str] | None] | None = None
    ) -> None:
        self._account_id = account_id
        self._livemode = livemode
        self._mode = "live" if livemode else "test"
        self._known: dict[str, ApiKey] = {}
        default = DEFAULT_LIVE_API_KEY if livemode else DEFAULT_API_KEY
        for key, api_key in (known or {default: None}).items():
            self.put(key, _to_api_key(api_key))

    def put(self, key: str, api_key: ApiKey) -> None:
        """Add or replace a key.

        Raises:
            ValueError: the key is of the other mode.
        """
        if key.split("_")[1:2] != [self._mode]:
            raise ValueError(
                f"a key of a {self._mode}-mode account must begin with rk_{self._mode}_ or sk_{self._mode}_"
            )
        self._known[key] = api_key

    def issue(self, token: str, api_key: ApiKey) -> None:
        """Add or replace an access token, which may have any format."""
        self._known[token] = api_key

    def remove(self, key: str) -> None:
        """Remove a key.

        Raises:
            KeyError: unknown key.
        """
        del self._known[key]

    def known(self) -> dict[str, ApiKey]:
        """Return the `ApiKey` of each key."""
        return dict(self._known)

    def authenticate(self, key: str | None, *, has_context: bool, now: int) -> str:
        """Return the key if it is valid.

        Args:
            key: key of the request, if it has one.
            has_context: whether the request has the header `Stripe-Context`.
            now: Unix seconds of the account's clock.

        Raises:
            StripeError: 400, 401 or 403, if the key is missing or invalid.
        """
        if not key:
            raise no_key()
        if key.startswith(f"pk_{self._mode}_"):
            raise publishable_key()
        if key.startswith("sk_org_") and not has_context:
            raise context_required()
        if key not in self._known:
            raise invalid_key(key)
        api_key = self._known[key]
        if api_key.expires_at is not None and api_key.expires_at <= now:
            raise expired_key(key)
        match api_key.state:
            case "expired":
                raise expired_key(key)
            case "ip_refused":
                raise ip_refused()
            case "revoked":
                raise no_access(key, self._account_id)
        return key

    def require(self, key: str, permission: str, account_id: str) -> None:
        """Raise StripeError 403 unless the key has the permission on this account, its own or a connected one."""
        if not self._known[key].has_permission(permission, on_connected=account_id != self._account_id):
            raise missing_permission(key, account_id, permission)

    def require_connect(self, key: str) -> None:
        """Raise StripeError 403 unless the key has any permission on connected accounts."""
        granted = self._known[key].connect_permissions
        if granted is not None and not granted:
            raise no_connect_permissions()


def _to_api_key(api_key: ApiKey | Iterable[str] | None) -> ApiKey:
    """Return the `ApiKey` for permissions alone, or for None, which means all."""
    if isinstance(api_key, ApiKey):
        return api_key
    return ApiKey(None, None) if api_key is None else ApiKey(tuple(api_key))
