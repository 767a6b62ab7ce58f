-- Failed payments by the code of their first failure, what it means, and who can fix it.
select
    currency,
    account_id,
    failure_class,
    failure_code,
    description,
    recommended_action,
    fixed_by,
    is_hard,
    sum(failed_count) as failed_count,
    sum(at_risk_amount) as at_risk_amount,
    sum(matured_count) as matured_count,
    cast(sum(round(recovery_rate_matured * matured_count)) as bigint) as matured_recovered_count,
    sum(attempt_count) as attempt_count,
    sum(advice_code_count) as advice_code_count
from marts.decline_reasons
where outcome = 'failed'
group by all
having sum(attempt_count) > 0
order by all
