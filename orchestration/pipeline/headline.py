"""Read the recovery rates of accounts from the mart `recovery_rates`, in the form that every screen shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from orchestration.warehouse.ledger import has_incomplete_builds, last_complete_build

_RATES = """
SELECT
    account_id, livemode,
    if(livemode OR NOT (SELECT coalesce(bool_or(livemode), false) FROM raw_stripe.payment_intents),
       'marts', 'marts_test') AS schema,
    currency, is_all_currencies, recovery_window_days,
    failed_count, recovery_rate, recovery_rate_lower, recovery_rate_upper,
    recovery_rate_strict, recovery_rate_strict_lower, recovery_rate_strict_upper,
    failed_count_to_date, recovered_count_to_date, recovered_late_count_to_date,
    in_recovery_count_to_date, lost_count_to_date,
    at_risk_amount_to_date, recovered_amount_to_date, recovered_late_amount_to_date, exponent
FROM marts.recovery_rates LEFT JOIN seeds.currencies ON currencies.code = currency
WHERE period = 'all_time'
ORDER BY schema, account_id, livemode, is_all_currencies DESC, failed_count_to_date DESC, currency
"""

_MAX_CURRENCIES = 5
"""Most currencies in a headline; those with the most failed payments are kept. Each has four plots in Dagster's UI."""

_CURRENCIES = """
SELECT
    episodes.currency,
    any_value(exponent) AS exponent,
    count(*) FILTER (is_matured),
    count(*) FILTER (is_matured AND recovery_status = 'recovered'),
    sum(at_risk_amount),
    sum(recovered_amount_net),
    coalesce(sum(at_risk_amount) FILTER (recovery_status = 'in_recovery'), 0)
FROM marts.recovery_episodes AS episodes LEFT JOIN seeds.currencies ON currencies.code = episodes.currency
WHERE is_in_scope AND episodes.currency IS NOT NULL
    AND livemode = (SELECT coalesce(bool_or(livemode), false) FROM raw_stripe.payment_intents)
GROUP BY episodes.currency ORDER BY count(*) DESC, episodes.currency LIMIT ?
"""


@dataclass(frozen=True)
class CurrencyFigures:
    """The figures to date of one currency, over all accounts: in live mode, or in test mode before any live payment.

    `matured` and `recovered` count failed payments whose window is over. Amounts are in minor units.
    """

    currency: str
    exponent: int | None
    matured: int
    recovered: int
    at_risk: int
    recovered_net: int
    in_recovery: int

    @property
    def rate(self) -> float | None:
        """Return the matured recovery rate, 0 to 1, or None if no failed payment has matured."""
        return self.recovered / self.matured if self.matured else None

    def amount(self, minor: int) -> float:
        """Return an amount in the currency's major unit, or in minor units if the exponent is not known."""
        return float(minor / 10 ** (self.exponent or 0))


@dataclass(frozen=True)
class RecoveryRate:
    """The matured recovery rate of an account, or of one of its currencies, and its figures to date.

    The fields are columns of the mart under similar names. The strict rate links payments by order only. `schema` is
    the schema of the account's tables in the published file. The shares are 0 to 1, and None if no failed payment has
    matured. Amounts are in minor units, and None for all currencies together.
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
    strict_share: float | None
    strict_lower: float | None
    strict_upper: float | None
    failed_to_date: int
    recovered_to_date: int
    recovered_late_to_date: int
    in_recovery_to_date: int
    lost_to_date: int
    at_risk_to_date: int | None
    recovered_amount_to_date: int | None
    recovered_late_amount_to_date: int | None
    exponent: int | None

    @property
    def title(self) -> str:
        """Return the name of the rate, such as "30-day recovery rate"."""
        return f"{self.window_days}-day recovery rate"

    def __str__(self) -> str:
        """Return the rate with its interval and number of payments, or a sentence that no payment has matured yet."""
        rate = _percent(self.share, self.lower, self.upper)
        if rate is None:
            recovered = f"{self.recovered_to_date:,} {'was' if self.recovered_to_date == 1 else 'were'} recovered"
            return f"No failed payment is {self.window} old yet; of {self.failed_to_date:,} to date {recovered}."
        return f"{rate} of {self.failed:,} matured failed payment{_s(self.failed)}"

    @property
    def window(self) -> str:
        """Return the recovery window in words, such as "30 days"."""
        return f"{self.window_days} day{_s(self.window_days)}"

    @property
    def strict(self) -> str | None:
        """Return the strict rate with its interval, or None if no failed payment has matured."""
        return _percent(self.strict_share, self.strict_lower, self.strict_upper)


def _percent(share: float | None, lower: float | None, upper: float | None) -> str | None:
    if share is None or lower is None or upper is None:
        return None
    return f"{100 * share:.1f} % ({100 * lower:.1f}\N{EN DASH}{100 * upper:.1f} %)"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def read_recovery_rates(connection: duckdb.DuckDBPyConnection) -> Sequence[RecoveryRate]:
    """Return each account's rate over all currencies, then by currency. The list is empty before the first build."""
    try:
        return [RecoveryRate(*row) for row in connection.execute(_RATES).fetchall()]
    except duckdb.CatalogException:
        return []


@dataclass(frozen=True)
class Headline:
    """The figures that Dagster shows first: recovery rates by account, and figures by currency."""

    rates: Sequence[RecoveryRate]
    currencies: Sequence[CurrencyFigures]


def read_headline(connection: duckdb.DuckDBPyConnection) -> Headline:
    """Return the headline figures. Both lists are empty before the first build."""
    try:
        rows = connection.execute(_CURRENCIES, [_MAX_CURRENCIES]).fetchall()
    except duckdb.CatalogException:
        rows = []
    return Headline(read_recovery_rates(connection), [CurrencyFigures(*row) for row in rows])


def read_project_fingerprint(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Return the fingerprint of the dbt project that all tables were built from, or None if it is not known.

    Figures of two builds can be compared only if the fingerprints are equal, since a var changes what a rate means.
    """
    try:
        built = last_complete_build(connection)
        return None if built is None or has_incomplete_builds(connection) else built.fingerprint
    except duckdb.CatalogException:
        return None
