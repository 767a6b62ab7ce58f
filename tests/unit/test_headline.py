"""The recovery rate and the summary as `recoup sync` prints them."""

from dataclasses import replace

import duckdb
import pytest

from orchestration.cli import run
from orchestration.pipeline import RecoveryRate, read_project_fingerprint, read_recovery_rates

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
    strict_share=0.29,
    strict_lower=0.2687,
    strict_upper=0.3120,
    failed_to_date=2110,
    recovered_to_date=945,
    recovered_late_to_date=5,
    in_recovery_to_date=200,
    lost_to_date=960,
    at_risk_to_date=None,
    recovered_amount_to_date=None,
    recovered_late_amount_to_date=None,
    exponent=None,
)
NO_RATE = {
    "share": None,
    "lower": None,
    "upper": None,
    "strict_share": None,
    "strict_lower": None,
    "strict_upper": None,
}
YOUNG = replace(RATE, failed=0, failed_to_date=40, **NO_RATE)  # type: ignore[arg-type]


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
def test_a_rate_shows_its_interval_and_payment_count_or_why_there_is_no_rate(rate: RecoveryRate, text: str) -> None:
    assert str(rate) == text
    assert len(f"{rate.title}  {rate}") <= 80 or rate.share is None
    assert len(text) <= 80


def test_the_title_names_the_window() -> None:
    assert RATE.title == "30-day recovery rate"
    assert replace(RATE, window_days=14).title == "14-day recovery rate"


def test_the_strict_rate_shows_its_interval_or_is_none() -> None:
    assert RATE.strict == "29.0 % (26.9\N{EN DASH}31.2 %)"
    assert YOUNG.strict is None


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("scale", [1, 1_000, 50_000])
@pytest.mark.parametrize("rate", [RATE, YOUNG, replace(RATE, share=1.0, lower=0.9999, upper=1.0, window_days=365)])
def test_no_line_of_the_summary_exceeds_80_columns_and_no_number_is_cut(
    rate: RecoveryRate, scale: int, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.console, "width", columns)
    counts = ("failed", *run._COUNTS)
    large = {name: getattr(rate, name) * scale for name in counts}
    whole = replace(rate, account_id="acct_1RhUBpz5bTZokES4", schema="marts_test", **large)
    amounts = dict.fromkeys(run._AMOUNTS, 987_654_321 * scale)
    own = [
        replace(whole, currency=code, is_all_currencies=False, exponent=exponent, **amounts)  # type: ignore[arg-type]
        for code, exponent in (("usd", 2), ("kwd", 3), ("jpy", 0), ("xyz", None), (None, None))
    ]
    smaller = {name: getattr(whole, name) // 3 for name in counts}
    before = run.Summary([replace(whole, **smaller), *own], "same")
    for last in (before, replace(before, project="other"), run.Summary()):
        run._print_summary(run.Summary([whole, *own], "same"), last)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert [line for line in lines if line != line.rstrip()] == []
        shown = " ".join(lines)
        for value in (*large.values(), *amounts.values()):
            assert f"{value:,}" in shown or not value
        assert "…" not in shown


def test_the_summary_compares_with_the_last_run_unless_the_dbt_project_has_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.console, "width", 80)
    own = replace(RATE, currency="usd", is_all_currencies=False, exponent=2)
    before = run.Summary([replace(RATE, failed_to_date=2100, recovered_late_to_date=6), own], "a")
    run._print_summary(run.Summary([RATE, own], "a"), before)
    (change,) = [line for line in capsys.readouterr().out.splitlines() if "since last run" in line]
    assert change.split()[3:] == ["+10", "-1"]
    run._print_summary(run.Summary([RATE, own], "a"), run.Summary([RATE, own], "a"))
    assert "since" not in capsys.readouterr().out
    for project, last in (("b", before), (None, before), (None, replace(before, project=None))):
        run._print_summary(run.Summary([RATE, own], project), last)
        shown = capsys.readouterr().out
        assert "since last run" not in shown
        assert "Not compared with the last run: dbt's vars, models or tables have changed." in shown


def test_a_warehouse_that_was_never_built_has_no_rates() -> None:
    with duckdb.connect() as connection:
        assert read_recovery_rates(connection) == []
        assert read_project_fingerprint(connection) is None
