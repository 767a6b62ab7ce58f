-- Retries and their success by weekday (1 is Monday), hour, number of the attempt and class of the previous failure.
select
    currency,
    account_id,
    previous_failure_class as failure_class,
    attempted_weekday as weekday,
    attempted_hour // 3 * 3 as from_hour,
    least(attempt_number, 7) as attempt_number,
    sum(retry_count - undecided_count) as decided_count,
    sum(succeeded_count) as succeeded_count,
    sum(wasted_count) as wasted_count,
    sum(too_early_count) as too_early_count,
    sum(retried_amount) as retried_amount,
    sum(succeeded_amount) as succeeded_amount
from marts.retry_performance
group by all
order by all
