-- What was in recovery on Monday, what came and what left during the week, and what was in recovery on Sunday.
select
    currency,
    account_id,
    cast(date_trunc('week', activity_date) as date) as week,
    arg_min(opening_in_recovery_count, activity_date) as opening_count,
    sum(new_at_risk_count) as new_count,
    sum(recovered_count) as recovered_count,
    sum(expired_count) as expired_count,
    sum(canceled_count) as canceled_count,
    arg_max(closing_in_recovery_count, activity_date) as closing_count,
    arg_min(opening_in_recovery_amount, activity_date) as opening_amount,
    sum(new_at_risk_amount) as new_amount,
    sum(recovered_at_risk_amount) as recovered_amount,
    sum(expired_at_risk_amount) as expired_amount,
    sum(canceled_at_risk_amount) as canceled_amount,
    arg_max(closing_in_recovery_amount, activity_date) as closing_amount
from marts.recovery_activity_daily
group by all
order by all
