-- How many payments in recovery need which action, and what they are likely to bring.
select
    currency,
    account_id,
    first_failure_class as failure_class,
    action,
    count(*) as payment_count,
    sum(open_amount) as open_amount,
    sum(expected_recovery_rate) as expected_count,
    sum(expected_recovered_amount) as expected_amount
from marts.recovery_actions
group by all
order by all
