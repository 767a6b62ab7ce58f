-- 0 <= net amount <= recovered amount <= amount at risk, and only an episode with a payment has a recovered amount.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_episodes'}}}) }}

select
    account_id,
    livemode,
    episode_id,
    first_paid_at,
    at_risk_amount,
    recovered_amount,
    recovered_amount_net
from {{ ref('recovery_episodes') }}
where
    not coalesce(
        recovered_amount_net >= 0
        and recovered_amount_net <= recovered_amount
        and recovered_amount <= at_risk_amount,
        false
    )
    or (recovered_amount > 0 and first_paid_at is null)
