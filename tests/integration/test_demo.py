"""The demo's account in the marts: figures like those of real accounts, and links between payments of one payer."""

from collections.abc import Iterator
from itertools import pairwise

import duckdb
import pytest

from orchestration.cli.demo import DEMO_SHOP, FIRST_DAYS
from orchestration.config.settings import Settings
from orchestration.simulator import DEFAULT_API_KEY, OPENED_AT, SimulatedAccount, SimulatorServer
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.truth import Rows

SEED, PAYMENTS = 1, 6_000
DAY = 86_400


@pytest.fixture(scope="module")
def account() -> SimulatedAccount:
    account = SimulatedAccount(SEED, PAYMENTS, shop=DEMO_SHOP)
    account.now = OPENED_AT + FIRST_DAYS * DAY
    return account


@pytest.fixture(scope="module")
def marts(
    account: SimulatedAccount, built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[duckdb.DuckDBPyConnection]:
    with SimulatorServer(account) as server:
        settings = Settings(
            stripe_api_key=DEFAULT_API_KEY,  # type: ignore[arg-type]
            stripe_api_base=server.url,
            recoup_data_dir=built_folder.copy(tmp_path_factory.mktemp("demo")),
        )
        pipeline.extract(settings)
    pipeline.build(settings)
    pipeline.publish_marts(settings)
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        yield connection


def share(marts: duckdb.DuckDBPyConnection, of: str, among: str, table: str = "recovery_episodes") -> float:
    ((value,),) = marts.execute(f"SELECT avg(({of})::INT) FROM marts.{table} WHERE {among}").fetchall()
    assert value is not None
    return float(value)


RECOVERED = "is_in_scope AND recovery_status = 'recovered'"


@pytest.mark.parametrize(
    ("name", "of", "among", "table", "low", "high"),
    [
        (
            "first attempts that fail",
            "outcome = 'failed'",
            "episode_attempt_number = 1 AND NOT is_card_testing",
            "payment_attempts",
            0.09,
            0.14,
        ),
        ("recovered", "recovery_status = 'recovered'", "is_in_scope AND is_matured", "recovery_episodes", 0.45, 0.58),
        ("within ten days", "days_to_recovery <= 10", RECOVERED, "recovery_episodes", 0.88, 0.98),
        ("by a retry", "recovery_method = 'same_instrument_retry'", RECOVERED, "recovery_episodes", 0.6, 0.8),
        ("by another payment", "recovery_scope = 'cross_intent'", RECOVERED, "recovery_episodes", 0.38, 0.60),
    ],
)
def test_the_demo_resembles_real_accounts(
    name: str, of: str, among: str, table: str, low: float, high: float, marts: duckdb.DuckDBPyConnection
) -> None:
    assert low <= share(marts, of, among, table) <= high, name


def test_the_headline_is_the_true_rate(account: SimulatedAccount, marts: duckdb.DuckDBPyConnection) -> None:
    """Compare with the debts of the stories, independently of the models' rules."""
    ((share, lower, upper, failed),) = marts.execute(
        """SELECT recovery_rate, recovery_rate_lower, recovery_rate_upper, failed_count FROM marts.recovery_rates
           WHERE period = 'all_time' AND is_all_currencies"""
    ).fetchall()
    truth = account.truth(account.now)
    debts = [debt for debt in truth.debts if debt.is_in_scope and debt.is_matured(account.now)]
    assert abs(share - truth.recovery_rate()) < 0.02
    assert abs(failed - len(debts)) <= 0.02 * len(debts)
    assert lower < share < upper < lower + 0.1


def test_later_attempts_succeed_less_often_and_cards_fail_as_real_cards_do(marts: duckdb.DuckDBPyConnection) -> None:
    succeeded: Rows = marts.execute(
        """SELECT sum(succeeded_count) / sum(retry_count) FROM marts.retry_performance
           WHERE attempt_number BETWEEN 2 AND 4 GROUP BY attempt_number ORDER BY attempt_number"""
    ).fetchall()
    assert all(before > after for (before,), (after,) in pairwise(succeeded)), succeeded
    first, failed = "episode_attempt_number = 1 AND NOT is_card_testing", "outcome = 'failed'"

    def failing(which: str) -> float:
        return share(marts, failed, f"{first} AND {which}", "payment_attempts")

    assert failing("card_funding = 'credit'") < failing("card_funding = 'prepaid'")
    assert failing("card_wallet IS NOT NULL") < failing("card_wallet IS NULL AND card_brand IS NOT NULL")


def test_recovered_payments_have_the_method_that_the_story_gave_them(
    account: SimulatedAccount, marts: duckdb.DuckDBPyConnection
) -> None:
    """Check that each payment named by the marts pays that debt, and that no debt paid by another payment is missed."""
    truth = account.truth(account.now)
    debt_of = {payment: debt for debt in truth.debts for payment in debt.payment_intent_ids}
    recovered = dict(
        marts.execute(
            f"""SELECT first_failed_payment_intent_id, recovering_payment_intent_id FROM marts.recovery_episodes
                WHERE {RECOVERED}"""
        ).fetchall()
    )
    right = [debt_of[failed] is debt_of[payer] for failed, payer in recovered.items()]
    assert sum(right) / len(right) > 0.97
    found = {debt_of[failed].id for failed in recovered}
    meant = [
        debt.id in found
        for debt in truth.debts
        if debt.is_in_scope and debt.is_recovered_in_time() and len(debt.payment_intent_ids) > 1
    ]
    assert sum(meant) / len(meant) > 0.95
