"""Stripe Connect: which accounts are connected to a platform, and whether a request may act on one."""

from collections.abc import Iterable

from orchestration.simulator.server.errors import no_access, no_such, not_a_platform
from orchestration.simulator.server.parameters import ListParameters
from orchestration.simulator.world.account import SimulatedAccount


class Connections:
    """The accounts connected to `platform`, which live by its clock from now on.

    Args:
        connected: in the order in which they were connected; None where the account is no platform at all.

    Raises:
        ValueError: accounts of both modes, or two of the same id.
    """

    def __init__(self, platform: SimulatedAccount, connected: Iterable[SimulatedAccount] | None = None) -> None:
        self.platform = platform
        self._is_platform = connected is not None
        self.everyone = [platform, *(connected or ())]
        if len({account.id for account in self.everyone}) < len(self.everyone):
            raise ValueError("two accounts have the same id: give them different seeds")
        if len({account.livemode for account in self.everyone}) > 1:
            raise ValueError("a platform and its connected accounts are in the same mode")
        self._connected = {account.id: account for account in self.everyone[1:]}
        for account in self._connected.values():
            account.clock = platform.clock

    def accounts(self) -> list[SimulatedAccount]:
        """The connected accounts, newest first."""
        return sorted(self._connected.values(), key=lambda account: account.opened_at)[::-1]

    def disconnect(self, account_id: str) -> SimulatedAccount:
        """Take an account out. Raises KeyError for one that is not connected."""
        return self._connected.pop(account_id)

    def require(self, key: str, account_id: str) -> None:
        """Raises StripeError 403 where requests with `Stripe-Account` may not act on that account."""
        if not self._is_platform:
            raise not_a_platform()
        if account_id not in self._connected:
            raise no_access(key, account_id)

    def page(self, asked: ListParameters) -> tuple[list[SimulatedAccount], bool]:
        """The connected accounts of a page, newest first, and whether there are more. Raises StripeError 400."""
        accounts = self.accounts()
        ids = [account.id for account in accounts]
        for param in ("starting_after", "ending_before"):
            cursor = getattr(asked, param)
            if cursor is not None and cursor not in ids:
                raise no_such("account", cursor, param)
        first = 0 if asked.starting_after is None else ids.index(asked.starting_after) + 1
        last = None if asked.ending_before is None else ids.index(asked.ending_before)
        low, high = asked.created
        found = [account for account in accounts[first:last] if low <= account.opened_at <= high]
        page = found[: asked.limit] if last is None else found[-asked.limit :]
        return page, len(found) > asked.limit
