"""Forecasts of recoveries: how often their bands hold, and whether a past forecast knows what came later."""

from pathlib import Path
from typing import Any

import pytest

from orchestration.simulator import SimulatedAccount, SimulatorServer
from orchestration.warehouse.connection import open_warehouse
from tests.bench.shops import make_settings
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder

DAY = 86_400
DAYS = 175
"""Days from the opening of the account, 1 January 2026, to Thursday, 25 June."""
MONDAY_DAY = 158
"""Days from the opening to Monday, 8 June."""
FEWEST_ROWS = 100

FORECAST = """
    SELECT currency, stock_count, stock_amount, expected_count, expected_count_variance, expected_amount
    FROM (
        SELECT currency, sum(stock_count) AS stock_count, sum(stock_amount) AS stock_amount,
            sum(expected_count) AS expected_count, sum(expected_count_variance) AS expected_count_variance,
            sum(expected_amount) AS expected_amount
        FROM marts.recovery_forecast WHERE days_ahead = ? GROUP BY currency
    ) ORDER BY currency"""
ACCURACY = """
    SELECT currency, stock_count, stock_amount, expected_count, expected_count_variance, expected_amount
    FROM marts.recovery_forecast_accuracy WHERE horizon_days = ? AND as_of_date = DATE '2026-06-08' ORDER BY currency"""
COVERAGE = """
    SELECT count(*), avg(is_count_within_90::INT), avg(is_amount_within_50::INT), avg(is_amount_within_90::INT),
        sum(recovered_count) / sum(expected_count)
    FROM marts.recovery_forecast_accuracy WHERE stock_count >= 5"""
STOCK = """
    SELECT currency, first_failure_class, count(*), sum(at_risk_amount) FROM marts.recovery_episodes
    WHERE is_in_scope AND recovery_status = 'in_recovery' GROUP BY ALL ORDER BY ALL"""
STOCK_OF_FORECAST = """
    SELECT currency, first_failure_class, stock_count, stock_amount FROM marts.recovery_forecast
    WHERE days_ahead = ? ORDER BY ALL"""


@pytest.mark.timeout(300)
def test_bands_hold_and_a_past_forecast_equals_the_forecast_of_that_day(
    built_folder: BuiltFolder, tmp_path: Path
) -> None:
    """Compare a Monday's forecast with what the table of past forecasts says of that day 17 days later."""
    account = SimulatedAccount(3, 600, 18)
    folder = built_folder.copy(tmp_path)
    # Below 30 days, since Stripe keeps events for 30 days.
    with SimulatorServer(account) as server:
        settings = make_settings(folder, server.url)
        for day in (*range(18, MONDAY_DAY, 20), MONDAY_DAY, DAYS):
            account.now = account.opened_at + day * DAY
            pipeline.extract(settings)
            if day >= MONDAY_DAY:
                pipeline.build(settings)
            if day == MONDAY_DAY:
                forecasts = {horizon: read(settings.warehouse_path, FORECAST, horizon) for horizon in (7, 14)}
                assert read(settings.warehouse_path, STOCK) == read(settings.warehouse_path, STOCK_OF_FORECAST, 30)
    for horizon, forecast in forecasts.items():
        past = read(settings.warehouse_path, ACCURACY, horizon)
        assert [row[:3] for row in past] == [row[:3] for row in forecast]
        for then, now in zip(forecast, past, strict=True):
            assert now[3:5] == pytest.approx(then[3:5], rel=1e-6, abs=1e-5)
            # A class may be rounded by half a minor unit.
            assert now[5] == pytest.approx(then[5], abs=4)
    [(rows, count_90, amount_50, amount_90, ratio)] = read(settings.warehouse_path, COVERAGE)
    assert rows >= FEWEST_ROWS
    assert count_90 >= 0.8
    assert 0.35 <= amount_50 <= 0.7
    assert 0.8 <= amount_90 <= 0.98
    assert 0.85 <= ratio <= 1.15


def read(path: Path, query: str, *values: int) -> list[tuple[Any, ...]]:
    with open_warehouse(path) as connection:
        return connection.execute(query, values).fetchall()
