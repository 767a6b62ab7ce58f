"""API keys of the account, what each may read, and what is wrong with it. How a request carries its key is `api`."""

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
"""Keys that may read everything and open nothing but a simulated account."""

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
    # in none of these groups
    "invoice_payments": "rak_invoice_read",
    "webhook_endpoints": "rak_webhook_read",
}
"""What a restricted key needs to read each resource, by the groups of Stripe's form for keys. Named as Stripe's 403
names it; where none was seen, as the permissions reference of Stripe Apps does. Tokens are missing: they have no list.
"""


@dataclass(frozen=True)
class ApiKey:
    """What the account knows of one of its keys.

    Args:
        permissions: what it may read (`charge_read` or `rak_charge_read`), None for everything.
        connect_permissions: the same on connected accounts; Stripe gives a restricted key none unless it is asked to.
        state: `expired` is also a key that was rolled, `ip_refused` one that is limited to other IP addresses,
            `revoked` one that lost its access to the account.
        expires_at: unix seconds of the account's clock from which on it is expired.

    Raises:
        ValueError: no such key can be.
    """

    permissions: Collection[str] | None = None
    connect_permissions: Collection[str] | None = ()
    state: KeyState = "active"
    expires_at: int | None = None

    def __post_init__(self) -> None:
        if self.state not in get_args(KeyState):
            raise ValueError(f"unknown state of a key: {self.state}")
        if isinstance(self.permissions, str) or isinstance(self.connect_permissions, str):
            raise ValueError("permissions are a list of names, or none at all for every one")

    def may(self, permission: str, *, on_connected: bool) -> bool:
        """Whether it has the permission, which is named as Stripe's 403 names it."""
        granted = self.connect_permissions if on_connected else self.permissions
        return granted is None or permission in granted or permission.removeprefix("rak_") in granted


class Keys:
    """The keys an account knows.

    Args:
        known: for each key what is known of it, or just its permissions, None for all everywhere. Without it there is
            one key: `DEFAULT_API_KEY`, or `DEFAULT_LIVE_API_KEY` for an account in live mode.

    Raises:
        ValueError: a key of the other mode.
    """

    def __init__(
        self, account_id: str, *, livemode: bool, known: Mapping[str, ApiKey | Iterable[str] | None] | None = None
    ) -> None:
        self._account_id = account_id
        self._livemode = livemode
        self._mode = "live" if livemode else "test"
        self._known: dict[str, ApiKey] = {}
        default = DEFAULT_LIVE_API_KEY if livemode else DEFAULT_API_KEY
        for key, about in (known or {default: None}).items():
            self.put(key, _read_short(about))

    def put(self, key: str, about: ApiKey) -> None:
        """Add a key, or change one. Raises ValueError for a key of the other mode."""
        if key.split("_")[1:2] != [self._mode]:
            raise ValueError(
                f"a key of an account with livemode={self._livemode} begins with rk_{self._mode}_ or sk_{self._mode}_"
            )
        self._known[key] = about

    def issue(self, token: str, about: ApiKey) -> None:
        """Know a token as well, which may look like anything; or change one."""
        self._known[token] = about

    def remove(self, key: str) -> None:
        """Know the key no more. Raises KeyError for one that is not known."""
        del self._known[key]

    def known(self) -> dict[str, ApiKey]:
        """What is known of every key."""
        return dict(self._known)

    def authenticate(self, key: str | None, *, has_context: bool, now: int) -> str:
        """The key, if it is one of the account's that works. `has_context`: whether `Stripe-Context` came with it;
        `now`: unix seconds on the account's clock.

        Raises:
            StripeError: 400, 401 or 403, for what is wrong with the key.
        """
        if not key:
            raise no_key()
        if key.startswith(f"pk_{self._mode}_"):
            raise publishable_key()
        if key.startswith("sk_org_") and not has_context:
            raise context_required()
        if key not in self._known:
            raise invalid_key(key)
        about = self._known[key]
        if about.expires_at is not None and about.expires_at <= now:
            raise expired_key(key)
        match about.state:
            case "expired":
                raise expired_key(key)
            case "ip_refused":
                raise ip_refused()
            case "revoked":
                raise no_access(key, self._account_id)
        return key

    def require(self, key: str, permission: str, account_id: str) -> None:
        """Raises StripeError 403 if the key lacks the permission on that account, its own or a connected one."""
        if not self._known[key].may(permission, on_connected=account_id != self._account_id):
            raise missing_permission(key, account_id, permission)

    def require_connect(self, key: str) -> None:
        """Raises StripeError 403 if the key may do nothing at all on connected accounts."""
        granted = self._known[key].connect_permissions
        if granted is not None and not granted:
            raise no_connect_permissions()


def _read_short(about: ApiKey | Iterable[str] | None) -> ApiKey:
    """What the short forms of a key's description stand for."""
    if isinstance(about, ApiKey):
        return about
    return ApiKey(None, None) if about is None else ApiKey(tuple(about))
