"""API keys of the account, and what each may read. How a request carries its key is `api`."""

from collections.abc import Iterable, Mapping
from typing import Final

from orchestration.simulator.errors import invalid_key, missing_permission, no_key

DEFAULT_API_KEY: Final = "rk_test_simulated_account_reads_everything"
DEFAULT_LIVE_API_KEY: Final = "rk_live_simulated_account_reads_everything"
"""Keys that may read everything and open nothing but a simulated account."""

READ_PERMISSION: Final = {
    "payment_intents": "rak_payment_intent_read",
    "charges": "rak_charge_read",
    "refunds": "rak_charge_read",
    "disputes": "rak_dispute_read",
    "events": "rak_event_read",
    "account": "rak_accounts_kyc_id_numbers_read",
    "balance": "rak_balance_read",
    "application_fees": "rak_application_fee_read",
    "reporting/report_runs": "rak_report_runs_and_report_types_read",
}
"""What a restricted key needs to read each resource, named as Stripe's 403 names it."""


class Keys:
    """The keys an account knows.

    Args:
        permissions: for each key the permissions it has (`charge_read` or `rak_charge_read`), None for all. Without
            it there is one key: `DEFAULT_API_KEY`, or `DEFAULT_LIVE_API_KEY` for an account in live mode.

    Raises:
        ValueError: a key of the other mode.
    """

    def __init__(
        self, account_id: str, *, livemode: bool, permissions: Mapping[str, Iterable[str] | None] | None = None
    ) -> None:
        self._account_id = account_id
        default = DEFAULT_LIVE_API_KEY if livemode else DEFAULT_API_KEY
        self._permissions = {
            key: None if names is None else {f"rak_{name.removeprefix('rak_')}" for name in names}
            for key, names in (permissions or {default: None}).items()
        }
        mode = "live" if livemode else "test"
        if any(key.split("_")[1:2] != [mode] for key in self._permissions):
            raise ValueError(f"a key of an account with livemode={livemode} begins with rk_{mode}_ or sk_{mode}_")

    def authenticate(self, key: str | None) -> str:
        """The key, if it is one of the account's. Raises StripeError 401."""
        if not key:
            raise no_key()
        if key not in self._permissions:
            raise invalid_key(key)
        return key

    def require(self, key: str, permission: str) -> None:
        """Raises StripeError 403 if the key lacks the permission."""
        granted = self._permissions[key]
        if granted is not None and permission not in granted:
            raise missing_permission(key, self._account_id, permission)
