"""Stripe Connect: the accounts connected to a platform, and access to them."""

from collections.abc import Iterable

from orchestration.simulator.server.errors import no_access, no_such_object, not_a_platform
from orchestration.simulator.server.parameters import ListParameters
from orchestration.simulator.world.account import SimulatedAccount


class Connections:
    """The accounts connected to a platform. They use the platform's clock.

    Args:
        platform: the account that has the API keys.
        connected: the connected accounts in the order of connection; None if the account is not a platform.

    Raises:
        ValueError: the accounts have different modes, or two have the same id.
    """

    def __init__(self, platform: SimulatedAccount, connected: Iterable[SimulatedAccount] | None = None) -> None:
        self.platform = platform
        self._is_platform = connected is not None
        self.all_accounts = [platform, *(connected or ())]
        if len({account.id for account in self.all_accounts}) < len(self.all_accounts):
            raise ValueError("two accounts have the same id: give them different seeds")
        if len({account.livemode for account in self.all_accounts}) > 1:
            raise ValueError("a platform and its connected accounts are in the same mode")
        self._connected = {account.id: account for account in self.all_accounts[1:]}
        for account in self._connected.values():
            account.clock = platform.clock

    def accounts(self) -> list[SimulatedAccount]:
        """Return the connected accounts, newest first."""
        return sorted(self._connected.values(), key=lambda account: account.opened_at)[::-1]

    def disconnect(self, account_id: str) -> SimulatedAccount:
        """Disconnect an account and return it.

        Raises:
            KeyError: the account is not connected.
        """
        return self._connected.pop(account_id)

    def require(self, key: str, account_id: str) -> None:
        """Raise StripeError 403 unless requests with `Stripe-Account` may access the account."""
        if not self._is_platform:
            raise not_a_platform()
        if account_id not in self._connected:
            raise no_access(key, account_id)

    def page(self, parameters: ListParameters) -> tuple[list[SimulatedAccount], bool]:
        """Return a page of connected accounts, newest first, and whether there are more.

        Raises:
            StripeError: 400, for a cursor that is not a connected account.
        """
        accounts = self.accounts()
        ids = [account.id for account in accounts]
        for param in ("starting_after", "ending_before"):
            cursor = getattr(parameters, param)
            if cursor is not None and cursor not in ids:
                raise no_such_object("account", cursor, param)
        first = 0 if parameters.starting_after is None else ids.index(parameters.starting_after) + 1
        last = None if parameters.ending_before is None else ids.index(parameters.ending_before)
        low, high = parameters.created
        found = [account for account in accounts[first:last] if low <= account.opened_at <= high]
        page = found[: parameters.limit] if last is None else found[-parameters.limit :]
        return page, len(found) > parameters.limit
