-- Retries and their success by the hours since the previous attempt, and by the day of the month.
select
    currency,
    account_id,
    previous_failure_class as failure_class,
    dimension,
    bucket,
    bucket_number,
    decided_count,
    succeeded_count
from marts.retry_timing
where previous_failure_code = 'all' and dimension in ('hours_since_previous_attempt', 'day_of_month')
order by all
