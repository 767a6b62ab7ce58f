"""What `recovery_actions` expects of the payments in recovery, compared with what they brought in the next 30 days."""

import math
from collections.abc import Iterator
from itertools import groupby

import duckdb
import pytest

from orchestration.cli.demo import DEMO_SHOP
from orchestration.config.settings import Settings
from orchestration.simulator import DEFAULT_API_KEY, OPENED_AT, SimulatedAccount, SimulatorServer
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder

PAYMENTS = 8_000
DAYS = (180, 210, 240)
"""Ages of the account, in days, at which the expectations are read. A window is over at the next one."""

DAY = 86_400


@pytest.fixture(scope="module")
def expected(
    built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with `expected`: each row of recovery_actions at each age, and what became of it."""
    account = SimulatedAccount(1, PAYMENTS, shop=DEMO_SHOP)
    connection = duckdb.connect()
    with SimulatorServer(account) as server:
        settings = Settings(
            stripe_api_key=DEFAULT_API_KEY,  # type: ignore[arg-type]
            stripe_api_base=server.url,
            recoup_data_dir=built_folder.copy(tmp_path_factory.mktemp("actions")),
        )
        for day in (*DAYS, DAYS[-1] + 31):
            account.now = OPENED_AT + day * DAY
            pipeline.extract(settings)
            pipeline.build(settings)
            pipeline.publish_marts(settings)
            connection.execute(f"ATTACH '{settings.published_path}' AS published (READ_ONLY)")
            name = f"actions_{day}" if day in DAYS else "ended"
            table = "recovery_actions" if day in DAYS else "recovery_episodes"
            connection.execute(f"CREATE TABLE {name} AS SELECT *, {day} AS day FROM published.marts.{table}")
            connection.execute("DETACH published")
    connection.execute(
        f"""CREATE TABLE expected AS
            SELECT actions.*, recovery_status = 'recovered' AS is_recovered, is_matured, recovered_in_window_amount
            FROM ({" UNION ALL ".join(f"FROM actions_{day}" for day in DAYS)}) AS actions
            LEFT JOIN ended USING (account_id, livemode, episode_id)"""
    )
    yield connection
    connection.close()


def read_miss(connection: duckdb.DuckDBPyConnection, condition: str) -> tuple[float, float, float]:
    """Return the expected and the actual number of recoveries, and the standard error of their difference.

    The error is that of the outcomes, and that of the rates: rows of one cell have the same rate, so their errors
    add up.
    """
    rows = connection.execute(
        f"""SELECT (first_failure_class, first_decline_category, expected_recovery_rate, day), expected_recovery_rate,
                (expected_recovery_rate_upper - expected_recovery_rate_lower) / 3.92, is_recovered
            FROM expected WHERE {condition} ORDER BY ALL"""
    ).fetchall()
    variance = sum(rate * (1 - rate) for _, rate, _, _ in rows)
    for _, cell in groupby(rows, key=lambda row: row[0]):
        variance += sum(error for _, _, error, _ in cell) ** 2
    return sum(row[1] for row in rows), sum(row[3] for row in rows), math.sqrt(variance)


def test_every_window_is_over(expected: duckdb.DuckDBPyConnection) -> None:
    ((count, over),) = expected.execute("SELECT count(*), count(*) FILTER (is_matured) FROM expected").fetchall()
    assert count > 200
    assert over > 0.99 * count, "payments were linked to an older failure since"


@pytest.mark.parametrize(
    "condition",
    [
        "true",
        "days_since_first_failure = 0",
        "days_since_first_failure BETWEEN 1 AND 3",
        "days_since_first_failure BETWEEN 4 AND 6",
        "days_since_first_failure >= 7",
        "attempt_count = 1",
        "attempt_count = 2",
        "attempt_count >= 3",
        "first_decline_category = 'soft'",
        "first_decline_category <> 'soft'",
        *(f"day = {day}" for day in DAYS),
    ],
)
def test_as_many_payments_are_recovered_as_expected(condition: str, expected: duckdb.DuckDBPyConnection) -> None:
    """Allow for three standard errors."""
    hoped, found, error = read_miss(expected, f"is_matured AND {condition}")
    print(f"{condition}: expected {hoped:.1f}, found {found}, error {error:.1f}")
    assert hoped > 0
    assert abs(found - hoped) <= 3 * error


def test_the_expected_amount_comes_in(expected: duckdb.DuckDBPyConnection) -> None:
    """Allow for three standard errors of the single amounts, since a few large payments decide."""
    for currency, hoped, found, error in expected.execute(
        """SELECT currency, sum(expected_recovered_amount), sum(open_amount * is_recovered::INT),
               sqrt(sum(open_amount::DOUBLE ** 2 * expected_recovery_rate * (1 - expected_recovery_rate)))
           FROM expected WHERE is_matured GROUP BY ALL"""
    ).fetchall():
        assert abs(found - hoped) <= 3 * error, currency
