"""Stripe's read allocation: how many reads it allows, and how often a sync may poll within a share of them.

Stripe allows an account, for all its tools together, 500 reads for each transaction on average over 30 days, and at
least 10,000 reads a month (docs: rate limits, April 2026). Stripe does not define a transaction; Recoup counts each
successful charge as one. Pure arithmetic: `sync.reads` stores the counts.
"""

from dataclasses import dataclass
from typing import Final

ALLOWANCE_PERIOD_SECONDS: Final = 30 * 86_400
"""Seconds over which Stripe averages the reads."""

READS_PER_TRANSACTION: Final = 500
MIN_ALLOWANCE: Final = 10_000


@dataclass(frozen=True)
class ReadBudget:
    """The reads of one account in the last 30 days.

    `used` counts Recoup's own reads. `transactions` counts successful charges. `poll_requests` is the number of
    requests of the last sync without its backfill, which the next sync is expected to need as well.
    """

    used: int
    transactions: int
    poll_requests: int

    @property
    def allowance(self) -> int:
        """Return the reads allowed in 30 days, for all tools of the account together."""
        return max(MIN_ALLOWANCE, READS_PER_TRANSACTION * self.transactions)

    @property
    def used_share(self) -> float:
        """Return Recoup's share of the allowance: 0 to 1, or more if it is exceeded."""
        return self.used / self.allowance


def seconds_between_polls(poll_requests: int, allowance: int, share: float) -> float:
    """Return the seconds between polls that keep `poll_requests` per poll within `share` (0 to 1) of the allowance."""
    return ALLOWANCE_PERIOD_SECONDS * poll_requests / (share * allowance)
