-- Forecasts of past Mondays for the next 30 days, made from what was known then, and what came back.
select
    currency,
    account_id,
    as_of_date,
    expected_count,
    expected_count_lower_90 as count_lower,
    expected_count_upper_90 as count_upper,
    recovered_count,
    is_count_within_90,
    expected_amount,
    expected_amount_lower_90 as amount_lower,
    expected_amount_upper_90 as amount_upper,
    recovered_amount,
    is_amount_within_90
from marts.recovery_forecast_accuracy
where horizon_days = 30
order by all
