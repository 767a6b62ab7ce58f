"""The recovery rate as a person reads it."""

from dataclasses import replace

import duckdb
import pytest

from orchestration.pipeline import RecoveryRate, read_recovery_rates

RATE = RecoveryRate(
    account_id="acct_1",
    livemode=False,
    schema="marts",
    currency=None,
    is_all_currencies=True,
    window_days=30,
    failed=1903,
    share=0.473,
    lower=0.4507,
    upper=0.4956,
    failed_to_date=2110,
    recovered_to_date=950,
    in_recovery_to_date=200,
    lost_to_date=960,
    at_risk_to_date=None,
    received_to_date=None,
    exponent=None,
)
YOUNG = replace(RATE, failed=0, share=None, lower=None, upper=None, failed_to_date=40)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (RATE, "47.3 % (45.1\N{EN DASH}49.6 %) of 1,903 matured failed payments"),
        (
            replace(RATE, failed=1, share=1.0, lower=0.2066, upper=1.0),
            "100.0 % (20.7\N{EN DASH}100.0 %) of 1 matured failed payment",
        ),
        (
            replace(RATE, share=0.0, lower=0.0, upper=0.002),
            "0.0 % (0.0\N{EN DASH}0.2 %) of 1,903 matured failed payments",
        ),
        (
            replace(YOUNG, recovered_to_date=12),
            "No failed payment is 30 days old yet; of 40 to date 12 were recovered.",
        ),
        (
            replace(YOUNG, recovered_to_date=1, window_days=1),
            "No failed payment is 1 day old yet; of 40 to date 1 was recovered.",
        ),
    ],
)
def test_a_rate_comes_with_its_interval_and_its_number_of_payments_or_with_the_reason_for_none(
    rate: RecoveryRate, text: str
) -> None:
    assert str(rate) == text
    assert len(f"{rate.title}  {rate}") <= 80 or rate.share is None
    assert len(text) <= 80


def test_the_title_names_the_window() -> None:
    assert RATE.title == "30-day recovery rate"
    assert replace(RATE, window_days=14).title == "14-day recovery rate"


def test_a_warehouse_that_was_never_built_has_no_rates() -> None:
    with duckdb.connect() as connection:
        assert read_recovery_rates(connection) == []
