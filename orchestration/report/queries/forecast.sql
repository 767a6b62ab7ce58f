-- How much of what is in recovery now will have come back on each of the next days. Variances can be added up.
select
    currency,
    account_id,
    first_failure_class as failure_class,
    days_ahead,
    stock_count,
    stock_amount,
    expected_count,
    expected_amount,
    expected_count_variance as count_variance,
    expected_amount_variance as amount_variance
from marts.recovery_forecast
order by all
