-- For each month of first failure: payments still at risk at the start of a day, and those recovered on it.
select
    currency,
    account_id,
    first_failure_class as failure_class,
    cohort_month,
    max(episode_count) as payment_count,
    list(at_risk_count order by day_number) as at_risk_counts,
    list(recovered_count order by day_number) as recovered_counts,
    count(*) filter (where is_fully_observed) as fully_observed_days
from marts.recovery_curve
where day_number <= 45
group by all
order by all
