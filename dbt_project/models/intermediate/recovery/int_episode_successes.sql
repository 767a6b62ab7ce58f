{# The PaymentIntents of failed episodes that succeeded, with the attempt that succeeded. #}
{{ config(materialized='ephemeral', meta={'part_of': 'int_episodes_summarized'}) }}

with payment_intents as (

    select * from {{ ref('int_episode_payment_intents') }}

),

attempts as (

    select * from {{ ref('int_episode_attempts') }}

),

final as (

    select
        payment_intents.*,
        attempts.attempt_id as succeeded_attempt_id,
        attempts.episode_attempt_number as succeeded_episode_attempt_number,
        attempts.payment_method_id as succeeded_payment_method_id,
        attempts.instrument_key,
        attempts.card_exp_month,
        attempts.card_exp_year,
        attempts.card_cvc_check,
        attempts.three_d_secure_result,
        attempts.three_d_secure_flow,
        greatest(
            payment_intents.received_amount - payment_intents.refunded_amount - payment_intents.lost_dispute_amount, 0
        ) as kept_amount,
        row_number() over (
            partition by payment_intents.account_id, payment_intents.livemode, payment_intents.episode_id
            order by payment_intents.first_succeeded_at, payment_intents.payment_intent_id
        ) as success_number
    from payment_intents
    left join attempts
        on
            payment_intents.account_id = attempts.account_id
            and payment_intents.livemode = attempts.livemode
            and payment_intents.payment_intent_id = attempts.payment_intent_id
            and payment_intents.succeeded_attempt_number = attempts.attempt_number
    where payment_intents.first_succeeded_at is not null

)

-- It passes all columns on: int_episodes_summarized names those that it keeps.
select * from final -- noqa: AM04
