{% set pause = "interval '" ~ checked_var('authentication_abandoned_after_hours') ~ " hours'" %}

with history as (

    select * from {{ ref('payment_intent_status_history') }}
    where is_current and status = 'requires_action'

),

payment_intents as (

    select * from {{ ref('payment_intents') }}
    where status = 'requires_action'

),

waiting_payments as (

    select * from {{ ref('waiting_payments') }}

),

episodes as (

    select * from {{ ref('recovery_episodes') }}

),

accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

final as (

    select
        -- ids
        history.account_id,
        history.livemode,
        history.payment_intent_id,
        payment_intents.episode_id,
        payment_intents.customer_id,

        -- strings
        payment_intents.currency,
        payment_intents.next_action_type,
        episodes.recovery_status,

        -- numerics
        payment_intents.amount,
        payment_intents.attempt_count,

        -- booleans
        episodes.episode_id is not null as has_failed,
        history.is_entered_at_estimated as is_requested_at_estimated,

        -- dates
        {{ reporting_date('history.entered_at + ' ~ pause) }} as abandoned_date,

        -- timestamps
        history.entered_at as requested_at,
        history.entered_at + {{ pause }} as abandoned_at
    from history
    inner join accounts
        on history.account_id = accounts.account_id and history.livemode = accounts.livemode
    inner join payment_intents
        on
            history.account_id = payment_intents.account_id
            and history.livemode = payment_intents.livemode
            and history.payment_intent_id = payment_intents.payment_intent_id
    left join episodes
        on
            payment_intents.account_id = episodes.account_id
            and payment_intents.livemode = episodes.livemode
            and payment_intents.episode_id = episodes.episode_id
    left join waiting_payments
        on
            history.account_id = waiting_payments.account_id
            and history.livemode = waiting_payments.livemode
            and history.payment_intent_id = waiting_payments.payment_intent_id
    where
        waiting_payments.payment_intent_id is null
        and history.entered_at + {{ pause }} <= accounts.data_through_at

)

select * from final
