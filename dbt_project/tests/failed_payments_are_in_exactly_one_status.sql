-- Recovered, recovered late, in recovery, canceled and expired add up to all failed payments, by count and by amount at
-- risk. This test counts failed payments from attempts and PaymentIntents: for each episode the failure that was
-- resolved first, if nothing had succeeded by then. The currency is that of this attempt.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_episodes'}}}) }}

with attempts_failed as (

    select * from {{ ref('payment_attempts') }}
    where outcome = 'failed' and episode_id is not null

),

-- The first PaymentIntent of an episode to succeed.
succeeded as (

    select
        account_id,
        livemode,
        episode_id,
        min((first_succeeded_at, payment_intent_id)) as first_success
    from {{ ref('payment_intents') }}
    where
        first_succeeded_at is not null
        and (account_id, livemode, episode_id) in (
            select
                attempts_failed.account_id,
                attempts_failed.livemode,
                attempts_failed.episode_id
            from attempts_failed
        )
    group by account_id, livemode, episode_id

),

-- The attempt that succeeded, if it is known.
numbered as (

    select
        succeeded.account_id,
        succeeded.livemode,
        succeeded.episode_id,
        succeeded.first_success[1] as succeeded_at,
        min(attempts.episode_attempt_number) as episode_attempt_number
    from succeeded
    left join {{ ref('payment_attempts') }} as attempts
        on
            succeeded.account_id = attempts.account_id
            and succeeded.livemode = attempts.livemode
            and succeeded.first_success[2] = attempts.payment_intent_id
            and attempts.outcome = 'succeeded'
    group by succeeded.account_id, succeeded.livemode, succeeded.episode_id, succeeded.first_success

),

firsts as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.currency,
        coalesce(attempts.amount, 0) as amount,
        row_number() over (
            partition by attempts.account_id, attempts.livemode, attempts.episode_id
            order by attempts.resolved_at, attempts.episode_attempt_number
        ) as failure_number
    from attempts_failed as attempts
    left join numbered
        on
            attempts.account_id = numbered.account_id
            and attempts.livemode = numbered.livemode
            and attempts.episode_id = numbered.episode_id
    where
        numbered.succeeded_at is null
        or (
            attempts.resolved_at <= numbered.succeeded_at
            and attempts.episode_attempt_number
            < coalesce(numbered.episode_attempt_number, attempts.episode_attempt_number + 1)
        )

),

failed as (

    select
        account_id,
        livemode,
        currency,
        count(*) as failed_count,
        sum(amount) as at_risk_amount
    from firsts
    where failure_number = 1
    group by account_id, livemode, currency

),

in_a_status as (

    select
        account_id,
        livemode,
        currency,
        count(*) as failed_count,
        sum(at_risk_amount) as at_risk_amount
    from {{ ref('recovery_episodes') }}
    where recovery_status in ('recovered', 'recovered_late', 'in_recovery', 'lost_canceled', 'lost_expired')
    group by account_id, livemode, currency

)

select
    failed.*,
    in_a_status.failed_count as failed_count_in_a_status,
    in_a_status.at_risk_amount as at_risk_amount_in_a_status
from failed
full outer join in_a_status
    on
        failed.account_id = in_a_status.account_id
        and failed.livemode = in_a_status.livemode
        and failed.currency is not distinct from in_a_status.currency
where
    failed.failed_count is distinct from in_a_status.failed_count
    or failed.at_risk_amount is distinct from in_a_status.at_risk_amount
