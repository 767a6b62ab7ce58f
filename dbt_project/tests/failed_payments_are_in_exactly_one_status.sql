-- Recovered, recovered late, in recovery, canceled and expired add up to all payments that failed, by count and by the
-- amount at risk. What failed is counted here from the attempts alone: of each episode the failure that was known
-- first, if nothing had succeeded by then.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_episodes'}}}) }}

with attempts_failed as (

    select * from {{ ref('payment_attempts') }}
    where outcome = 'failed'

),

succeeded as (

    select
        account_id,
        livemode,
        episode_id,
        min((resolved_at, episode_attempt_number)) as first_success
    from {{ ref('payment_attempts') }}
    where
        outcome = 'succeeded'
        and (account_id, livemode, episode_id) in (
            select
                attempts_failed.account_id,
                attempts_failed.livemode,
                attempts_failed.episode_id
            from attempts_failed
        )
    group by account_id, livemode, episode_id

),

attempts as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.episode_id,
        min_by(attempts.amount, (attempts.resolved_at, attempts.episode_attempt_number)) as amount
    from attempts_failed as attempts
    left join succeeded
        on
            attempts.account_id = succeeded.account_id
            and attempts.livemode = succeeded.livemode
            and attempts.episode_id = succeeded.episode_id
    where
        succeeded.first_success is null
        or (
            attempts.resolved_at <= succeeded.first_success[1]
            and attempts.episode_attempt_number < succeeded.first_success[2]
        )
    group by attempts.account_id, attempts.livemode, attempts.episode_id

),

failed as (

    select
        attempts.account_id,
        attempts.livemode,
        payment_intents.currency,
        count(*) as failed_count,
        sum(attempts.amount) as at_risk_amount
    from attempts
    inner join {{ ref('payment_intents') }} as payment_intents
        on
            attempts.account_id = payment_intents.account_id
            and attempts.livemode = payment_intents.livemode
            and attempts.episode_id = payment_intents.payment_intent_id
    group by attempts.account_id, attempts.livemode, payment_intents.currency

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
