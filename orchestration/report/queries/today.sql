-- Payments in recovery, what to do about each now, and what it is likely to bring: the 50 most valuable of each action.
select
    currency,
    account_id,
    first_failure_class as failure_class,
    action,
    reason,
    failure_code,
    payment_intent_id,
    dashboard_url,
    open_amount,
    attempt_count,
    earliest_at,
    latest_at,
    expected_recovery_rate,
    expected_recovered_amount
from marts.recovery_actions
qualify row_number() over (
    partition by currency, account_id, first_failure_class, action
    order by expected_recovered_amount desc, open_amount desc, episode_id
) <= 50
order by all
