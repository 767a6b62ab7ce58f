-- Failed payments by the week (Monday) of their first failure, and what became of them.
select
    currency,
    account_id,
    first_failure_class as failure_class,
    cast(date_trunc('week', first_failed_date) as date) as week,
    case
        when recovery_status like 'lost%' then 'lost'
        else recovery_status
    end as outcome,
    count(*) as payment_count,
    sum(at_risk_amount) as at_risk_amount
from marts.recovery_episodes
where is_in_scope
group by all
order by all
