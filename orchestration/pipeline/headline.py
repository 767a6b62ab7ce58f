"""The recovery rate of an account as every screen shows it, read from the mart `recovery_rates`."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

_RATES = """
SELECT
    account_id, livemode,
    if(livemode OR NOT (SELECT coalesce(bool_or(livemode), false) FROM raw_stripe.payment_intents),
       'marts', 'marts_test') AS schema,
    currency, is_all_currencies, recovery_window_days,
    failed_count, recovery_rate, recovery_rate_lower, recovery_rate_upper,
    failed_count_to_date, recovered_count_to_date + recovered_late_count_to_date,
    in_recovery_count_to_date, lost_count_to_date,
    at_risk_amount_to_date, recovered_amount_to_date + recovered_late_amount_to_date, exponent
FROM marts.recovery_rates LEFT JOIN seeds.currencies ON currencies.code = currency
WHERE period = 'all_time'
ORDER BY schema, account_id, livemode, is_all_currencies DESC, failed_count_to_date DESC, currency
"""


@dataclass(frozen=True)
class RecoveryRate:
    """Hold the matured recovery rate of an account, or of one of its currencies, and its figures to date.

    `schema` is where the published file has the account's tables. The shares are 0 to 1, and None if no failed payment
    has matured. Amounts are in minor units, and None for all currencies together.
    """

    account_id: str
    livemode: bool
    schema: str
    currency: str | None
    is_all_currencies: bool
    window_days: int
    failed: int
    share: float | None
    lower: float | None
    upper: float | None
    failed_to_date: int
    recovered_to_date: int
    in_recovery_to_date: int
    lost_to_date: int
    at_risk_to_date: int | None
    received_to_date: int | None
    exponent: int | None

    @property
    def title(self) -> str:
        """Return what the rate is called: "30-day recovery rate"."""
        return f"{self.window_days}-day recovery rate"

    def __str__(self) -> str:
        """Return the rate with its interval and the number of payments, or that nothing has matured yet."""
        if self.share is None or self.lower is None or self.upper is None:
            days = f"{self.window_days} day{_s(self.window_days)}"
            recovered = f"{self.recovered_to_date:,} {'was' if self.recovered_to_date == 1 else 'were'} recovered"
            return f"No failed payment is {days} old yet; of {self.failed_to_date:,} to date {recovered}."
        share, lower, upper = (f"{100 * each:.1f}" for each in (self.share, self.lower, self.upper))
        return f"{share} % ({lower}\N{EN DASH}{upper} %) of {self.failed:,} matured failed payment{_s(self.failed)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def read_recovery_rates(connection: duckdb.DuckDBPyConnection) -> Sequence[RecoveryRate]:
    """Return the rates of each account: first of all its currencies, then of each. Empty before the first build."""
    try:
        return [RecoveryRate(*row) for row in connection.execute(_RATES).fetchall()]
    except duckdb.CatalogException:
        return []
