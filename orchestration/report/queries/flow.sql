-- Failed payments by first failure, number of retries, method of recovery and outcome.
select
    currency,
    account_id,
    first_failure_class as failure_class,
    case
        when attempt_count <= 1 then 'no retry'
        when attempt_count = 2 then '1 retry'
        when attempt_count <= 4 then '2 or 3 retries'
        else '4 or more retries'
    end as retries,
    case
        when recovery_status not in ('recovered', 'recovered_late') then 'not recovered'
        else coalesce(replace(recovery_method, '_', ' '), 'method not known')
    end as method,
    case when recovery_status like 'lost%' then 'lost' else recovery_status end as outcome,
    count(*) as payment_count,
    sum(at_risk_amount) as at_risk_amount
from marts.recovery_episodes
where is_in_scope
group by all
order by all
