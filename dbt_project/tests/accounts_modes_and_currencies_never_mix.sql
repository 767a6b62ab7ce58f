-- An attempt, its payment and its episode have the same account, mode and currency. A warning only: an account that was
-- first synced without its id (STRIPE_ACCOUNT_ID) has rows under two ids until the data folder is created again.
{{ config(severity='warn', meta={'dagster': {'ref': {'name': 'payment_attempts'}}}) }}

select
    attempts.account_id,
    attempts.livemode,
    attempts.attempt_id,
    attempts.currency,
    payments.currency as payment_currency,
    episodes.currency as episode_currency
from {{ ref('payment_attempts') }} as attempts
inner join {{ ref('payment_intents') }} as payments
    on attempts.payment_intent_id = payments.payment_intent_id
left join {{ ref('recovery_episodes') }} as episodes
    on attempts.episode_id = episodes.episode_id and attempts.account_id = episodes.account_id
where
    {{ is_untested('attempts') }}
    and (
        attempts.account_id <> payments.account_id
        or attempts.livemode <> payments.livemode
        or attempts.livemode <> coalesce(episodes.livemode, attempts.livemode)
        or attempts.currency <> payments.currency
        or attempts.currency <> coalesce(episodes.currency, attempts.currency)
    )
