{# The attempt that failed first in each episode. It makes the episode a failed payment. #}
{{ config(materialized='ephemeral', meta={'part_of': 'int_episodes_summarized'}) }}

with payment_intents as (

    select * from {{ ref('int_episode_payment_intents') }}

),

attempts as (

    select * from {{ ref('int_episode_attempts') }}

),

successes as (

    select * from {{ ref('int_episode_successes') }}

),

-- Attempts that failed before any success. A debit that bounces after another attempt has paid is not a failed payment.
failures_numbered as (

    select
        attempts.*,
        row_number() over (
            partition by attempts.account_id, attempts.livemode, attempts.episode_id
            order by attempts.resolved_at, attempts.episode_attempt_number
        ) as failure_number
    from attempts
    left join successes
        on
            attempts.account_id = successes.account_id
            and attempts.livemode = successes.livemode
            and attempts.episode_id = successes.episode_id
            and successes.success_number = 1
    where {{ failed_before('successes') }}

),

final as (

    select
        failures_numbered.*,
        coalesce(failures_numbered.amount, 0) as at_risk_amount,
        payment_intents.order_key,
        payment_intents.currency as current_currency,
        payment_intents.amount as current_amount
    from failures_numbered
    inner join payment_intents
        on
            failures_numbered.account_id = payment_intents.account_id
            and failures_numbered.livemode = payment_intents.livemode
            and failures_numbered.payment_intent_id = payment_intents.payment_intent_id
    where failures_numbered.failure_number = 1

)

-- It passes all columns on: int_episodes_summarized names those that it keeps.
select * from final -- noqa: AM04
