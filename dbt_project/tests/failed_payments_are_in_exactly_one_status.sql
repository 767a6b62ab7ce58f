-- Recovered, recovered late, in recovery, canceled and expired add up to all payments that failed, by count and by the
-- amount at risk. What failed is counted here from the attempts alone: the first failure, if no success precedes it.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_episodes'}}}) }}

with attempts as (

    select
        *,
        min(case when outcome = 'failed' then attempt_number end) over of_payment as first_failed_number,
        min(case when outcome = 'succeeded' then attempt_number end) over of_payment as first_succeeded_number
    from {{ ref('payment_attempts') }}
    window of_payment as (partition by account_id, livemode, payment_intent_id)

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
            and attempts.payment_intent_id = payment_intents.payment_intent_id
    where
        attempts.attempt_number = attempts.first_failed_number
        and attempts.attempt_number < coalesce(attempts.first_succeeded_number, attempts.attempt_number + 1)
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
