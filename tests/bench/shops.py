"""How far the published recovery rates are from the truth, in each kind of shop and with other parameters.

`python -m tests.bench.shops [NAME ...] [--variants]`: the named kinds or variants, all `VARIANTS`, or without arguments
all kinds, as `make bench` does. RECOUP_BENCH_SEEDS and RECOUP_BENCH_SHOP set the seeds and the payments.
"""

import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from orchestration.cli.demo import KINDS, PLAIN
from orchestration.config.settings import Settings
from orchestration.pipeline import plan
from orchestration.simulator import DEFAULT_API_KEY, Debt, SimulatedAccount, SimulatorServer
from orchestration.simulator.world.calibration import DAY, HOUR
from orchestration.stripe_api import client
from orchestration.stripe_api.rate_limits import Governor
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder, ensure_built_folder

SEEDS: Final = tuple(map(int, os.environ.get("RECOUP_BENCH_SEEDS", "1 2 3").split()))
PAYMENTS: Final = int(os.environ.get("RECOUP_BENCH_SHOP", "2000"))
DAYS: Final = 180
DAYS_BETWEEN_SYNCS: Final = 18
"""Below 30, since Stripe keeps events for 30 days, and only an event shows a failure without a charge."""

VARIANTS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "biweekly_plan": ("weekly_plan", {"interval_days": 14}),
    "weekly_with_jitter": ("weekly_plan", {"jitter": 4 * HOUR, "skip_share": 0.1}),
    "daily_irregular": ("daily_price", {"jitter": 3 * HOUR, "skip_share": 0.3}),
    "every_other_day": ("daily_price", {"interval_days": 2}),
    "monthly_slow": (
        "monthly_new_intents",
        {"retry_delays": tuple((days * DAY, days * DAY) for days in (5, 10, 20))},
    ),
    "every_30_days": ("monthly_new_intents", {"interval_days": 30}),
    "monthly_failing": ("monthly_new_intents", {"failure_rate": 0.25}),
    "equal_three": ("equal_subscriptions", {"subscription_count": 3}),
    "equal_twelve": ("equal_subscriptions", {"subscription_count": 12}),
    "equal_weekly": ("equal_subscriptions", {"interval_days": 7}),
    "one_off_regulars": ("one_off", {"returning_share": 0.8}),
    "guests_one_product": ("checkout_guests", {"returning_share": 0.8, "product_count": 1}),
    "split_tender_mostly": ("split_tender", {"part_share": 0.9}),
    "small_deposits": ("deposits", {"deposit_share": 0.1}),
    "terminal_regulars": ("terminal", {"returning_share": 0.8}),
    "terminal_other_cards": ("terminal", {"other_card_in_new_intent_share": 0.3}),
    "card_testing_6": ("card_testing", {"testing_batch": 6}),
    "card_testing_40": ("card_testing", {"testing_batch": 40}),
}
"""Variants: a kind of shop, and the parameters that differ from those of its kind."""

_MOST_RATE_POINTS: Final = {"daily_price": 0.05}
_RATE_POINTS: Final = 0.02
_STRICT_POINTS: Final = 0.005
_FAILED_SHARE: Final = 0.02
_AMOUNT_SHARE: Final = 0.05
_SINGLE_PAYMENTS: Final = 2
"""Payments, and debts of an amount, that may differ in a small account even if they are a larger share of it."""
_FEWEST_DEBTS: Final = 20
"""The number of failed debts of a currency from which its amounts are compared."""


@dataclass(frozen=True)
class Amounts:
    """Failed amounts of a currency: at risk, recovered within 30 days, and received by now."""

    at_risk: int = 0
    recovered: int = 0
    received: int = 0


@dataclass(frozen=True)
class Figures:
    """The matured failed payments in scope: their number, their rates, and the amounts of each currency."""

    failed: int
    rate: float
    strict_rate: float
    amounts: Mapping[str, Amounts]


@dataclass(frozen=True)
class Comparison:
    """The truth and the published tables of one account.

    Args:
        kind: the kind of shop, which sets the limits.
        true: figures of the debts; strict_rate is rate.
        debts_in: of each currency that is compared, the amounts of its failed debts, the largest first.
    """

    name: str
    kind: str
    seed: int
    true: Figures
    published: Figures
    debts_in: Mapping[str, Sequence[int]]

    @property
    def failed_difference(self) -> float:
        """Return by what share the number of failed payments differs."""
        return (self.published.failed - self.true.failed) / max(1, self.true.failed)

    @property
    def linked_difference(self) -> float:
        """Return the published rate minus the true one, 0 to 1."""
        return self.published.rate - self.true.rate

    @property
    def strict_difference(self) -> float:
        """Return the published strict rate minus the true one, 0 to 1."""
        return self.published.strict_rate - self.true.rate

    @property
    def amount_differences(self) -> Iterator[tuple[str, str, float]]:
        """Yield currency, name and difference of each amount, as a share of what was at risk in that currency."""
        for currency in self.debts_in:
            true, published = self.true.amounts[currency], self.published.amounts.get(currency, Amounts())
            for name, value in vars(true).items():
                yield currency, name, (vars(published)[name] - value) / true.at_risk

    @property
    def amount_difference(self) -> float:
        """Return the largest difference of an amount, as a share of what was at risk in its currency."""
        return max((abs(share) for _, _, share in self.amount_differences), default=0.0)

    def violations(self) -> Iterator[str]:
        """Yield a sentence for each limit that is exceeded. Few payments may differ in a small account."""
        failed = max(1, self.true.failed)
        single = _SINGLE_PAYMENTS / failed
        if abs(self.failed_difference) > max(_FAILED_SHARE, single):
            yield f"{self.published.failed} failed payments instead of {self.true.failed}"
        if abs(self.linked_difference) > max(_MOST_RATE_POINTS.get(self.kind, _RATE_POINTS), single):
            yield f"recovery rate {self.published.rate:.1%} instead of {self.true.rate:.1%}"
        if self.strict_difference > max(_STRICT_POINTS, single / _SINGLE_PAYMENTS):
            yield f"strict rate {self.published.strict_rate:.1%}, above {self.true.rate:.1%}"
        for currency, name, share in self.amount_differences:
            largest = sum(self.debts_in[currency][:_SINGLE_PAYMENTS]) / self.true.amounts[currency].at_risk
            if abs(share) > max(_AMOUNT_SHARE, largest):
                yield f"{name} amount in {currency} differs by {share:+.1%} of what was at risk"


def true_figures(debts: Sequence[Debt], at: int) -> Figures:
    """Return the figures of failed debts that have matured. Amounts received in another currency are not counted."""
    amounts: dict[str, Amounts] = defaultdict(Amounts)
    for debt in debts:
        before, received = amounts[debt.currency], _received(debt)
        amounts[debt.currency] = Amounts(
            before.at_risk + debt.amount,
            before.recovered + received * (debt.paid_at is None or debt.is_recovered_in_time()),
            before.received + received,
        )
    rate = sum(debt.is_recovered_in_time() for debt in debts) / max(1, len(debts))
    return Figures(len(debts), rate, rate, amounts)


def _received(debt: Debt) -> int:
    return min(debt.amount, dict(debt.received_by_currency).get(debt.currency, 0))


def published_figures(settings: Settings, account_id: str) -> Figures:
    """Return the headline of an account, and its amounts, as analysts read them."""
    with duckdb.connect(str(settings.published_path), read_only=True) as published:
        headline = published.execute(
            """SELECT failed_count, recovery_rate, recovery_rate_strict FROM marts.recovery_rates
               WHERE account_id = ? AND period = 'all_time' AND is_all_currencies""",
            [account_id],
        ).fetchone()
        amounts = published.execute(
            """SELECT currency, at_risk_amount, recovered_amount, received
               FROM marts.recovery_rates
               JOIN (SELECT account_id, currency, sum(recovered_amount)::BIGINT AS received FROM marts.recovery_episodes
                     WHERE is_in_scope AND is_matured GROUP BY ALL) USING (account_id, currency)
               WHERE account_id = ? AND period = 'all_time'""",
            [account_id],
        ).fetchall()
    failed, rate, strict_rate = headline or (0, None, None)
    return Figures(failed, rate or 0.0, strict_rate or 0.0, {row[0]: Amounts(*row[1:]) for row in amounts})


def compare(name: str, kind: str, account: SimulatedAccount, settings: Settings) -> Comparison:
    """Compare the published tables of an account with its truth."""
    at = account.now
    failed = [debt for debt in account.truth(at).debts if debt.is_in_scope and debt.is_matured(at)]
    of_currency: dict[str, list[int]] = defaultdict(list)
    for debt in failed:
        of_currency[debt.currency].append(debt.amount)
    debts_in = {
        currency: sorted(amounts, reverse=True)
        for currency, amounts in of_currency.items()
        if len(amounts) >= _FEWEST_DEBTS
    }
    published = published_figures(settings, account.id)
    return Comparison(name, kind, account.seed, true_figures(failed, at), published, debts_in)


Read = Callable[[int, str | None, Mapping[str, Any] | None, Path], SimulatedAccount]
"""A function that reads an account, by seed, kind of shop and parameters, into a data folder and returns the account.
"""


def read_by_syncs(seed: int, shop: str | None, parameters: Mapping[str, Any] | None, folder: Path) -> SimulatedAccount:
    """Sync a young account, and again every 18 days of its time, as if Recoup had always run."""
    payments = PAYMENTS * DAYS_BETWEEN_SYNCS // DAYS
    account = SimulatedAccount(seed, payments, DAYS_BETWEEN_SYNCS, shop=shop, shop_parameters=parameters)
    with SimulatorServer(account) as server:
        settings = make_settings(folder, server.url)
        pipeline.extract(settings)
        while account.now < account.opened_at + DAYS * DAY:
            account.now += DAYS_BETWEEN_SYNCS * DAY
            pipeline.extract(settings)
    return account


def make_settings(folder: Path, url: str = "http://127.0.0.1:9") -> Settings:
    """Return the settings of a data folder and of the server of the account."""
    return Settings(stripe_api_key=SecretStr(DEFAULT_API_KEY), stripe_api_base=url, recoup_data_dir=folder)


def compare_shops(names: Iterable[str], seeds: Sequence[int], read: Read, folder: Path) -> list[Comparison]:
    """Read an account of each name and seed into one data folder, build and publish once, and compare each of them."""
    accounts = []
    for name in names:
        kind, parameters = VARIANTS.get(name, (name, None))
        shop = None if kind == PLAIN else kind
        accounts += [(name, kind, read(seed, shop, parameters, folder)) for seed in seeds]
    settings = make_settings(folder)
    pipeline.build(settings)
    pipeline.publish_marts(settings)
    return [compare(name, kind, account, settings) for name, kind, account in accounts]


def format_table(compared: Iterable[Comparison]) -> Table:
    """Return the table of all comparisons; values that exceed a limit are marked."""
    columns = ("kind of shop", "seed", "failed", "published", "diff", "true", "linked", "diff", "strict", "diff")
    table = Table(*columns, "amounts", "")
    for each in compared:
        table.add_row(
            each.name,
            str(each.seed),
            str(each.true.failed),
            str(each.published.failed),
            f"{each.failed_difference:+.1%}",
            f"{each.true.rate:.1%}",
            f"{each.published.rate:.1%}",
            f"{100 * each.linked_difference:+.1f}",
            f"{each.published.strict_rate:.1%}",
            f"{100 * each.strict_difference:+.1f}",
            f"{each.amount_difference:.1%}",
            "over" if any(each.violations()) else "ok",
        )
    return table


@contextmanager
def without_rate_limit(folder: Path) -> Iterator[BuiltFolder]:
    """Read without Stripe's rate limit, and yield a data folder whose models are built on empty tables."""
    kept = folder / "plan.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan, "_path", lambda target_dir: kept)
        patched.setattr(client, "Governor", lambda *, livemode, wait: Governor(livemode=livemode, wait=lambda _: None))
        yield ensure_built_folder(folder, kept)


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table, and a sentence for each limit that is exceeded."""
    console = Console(width=120, highlight=False)
    names = [each for each in arguments if each != "--variants"]
    unknown = [each for each in names if each not in (*KINDS, *VARIANTS)]
    if unknown:
        sys.exit(f"There is no kind of shop {unknown[0]}. Choose one of: {', '.join((*KINDS, *VARIANTS))}")
    names = [*names, *(VARIANTS if "--variants" in arguments else ())] or [*KINDS]
    compared: list[Comparison] = []
    with tempfile.TemporaryDirectory() as shared, without_rate_limit(Path(shared)) as built_folder:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                compared += compare_shops([name], SEEDS, read_by_syncs, built_folder.copy(Path(folder)))
            console.print(f"{name} done", style="dim")
    console.print(format_table(compared))
    console.print(
        "30-day rates of failed payments in scope that have matured, as published; differences in percentage points.\n"
        "Amounts: the largest difference as a share of what was at risk in its currency."
    )
    for each in compared:
        for violation in each.violations():
            console.print(f"{each.name} {each.seed}: {violation}")


if __name__ == "__main__":
    main(sys.argv[1:])
