"""Stripe's read allocation: how much may be read, and how often one may poll within a share of it.

Stripe lets an account be read, by all its tools together, on average 500 times for each transaction over 30 days, and
10,000 times a month at least (docs: rate limits, April 2026). What counts as a transaction Stripe does not say; a
successful charge is taken for one. Pure arithmetic: the counts are kept in `sync.reads`.
"""

from dataclasses import dataclass
from typing import Final

ALLOWANCE_PERIOD_SECONDS: Final = 30 * 86_400
"""Seconds that the allocation is averaged over."""

READS_PER_TRANSACTION: Final = 500
MIN_ALLOWANCE: Final = 10_000


@dataclass(frozen=True)
class ReadBudget:
    """Reads of one account in the last 30 days.

    `used` are Recoup's own; `poll_requests` is what the last sync made beside listing what it did not know yet, as the next
    one can be expected to make again.
    """

    used: int
    transactions: int
    poll_requests: int

    @property
    def allowance(self) -> int:
        """Reads in 30 days, for all tools of the account together."""
        return max(MIN_ALLOWANCE, READS_PER_TRANSACTION * self.transactions)

    @property
    def used_share(self) -> float:
        """Recoup's part of the allowance, 0 to 1 and above."""
        return self.used / self.allowance


def seconds_between_polls(poll: int, allowance: int, share: float) -> float:
    """How far apart polls of so many requests must lie to stay within `share` (0 to 1) of the allowance."""
    return ALLOWANCE_PERIOD_SECONDS * poll / (share * allowance)
