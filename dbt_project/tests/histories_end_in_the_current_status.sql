-- The transitions of a PaymentIntent are numbered without gaps and follow each other without gaps in time. The last one
-- leads to the current status.
{{ config(meta={'dagster': {'ref': {'name': 'payment_intent_status_history'}}}) }}

with payment_intents as (

    select * from {{ ref('payment_intents') }}
    where {{ is_untested() }}

),

history as (

    select
        *,
        lag(transition_number, 1, 0) over of_payment as number_before,
        lag(left_at) over of_payment as left_before_at,
        lag(status) over of_payment as status_before
    from {{ ref('payment_intent_status_history') }}
    where
        {{ is_untested() }}
        or (account_id, livemode, payment_intent_id) in (
            select
                payment_intents.account_id,
                payment_intents.livemode,
                payment_intents.payment_intent_id
            from payment_intents
        )
    window of_payment as (partition by account_id, livemode, payment_intent_id order by transition_number)

),

current_states as (

    select * from history
    where is_current

),

broken as (

    select
        payment_intent_id,
        transition_number,
        status,
        'does not follow the one before it' as complaint
    from history
    where
        transition_number <> number_before + 1
        or status is not distinct from status_before
        or previous_status is distinct from status_before
        or entered_at is distinct from coalesce(left_before_at, entered_at)
        or left_at < entered_at

),

elsewhere as (

    select
        payment_intents.payment_intent_id,
        current_states.transition_number,
        current_states.status,
        'is not the status of the payment' as complaint
    from payment_intents
    left join current_states
        on
            payment_intents.account_id = current_states.account_id
            and payment_intents.livemode = current_states.livemode
            and payment_intents.payment_intent_id = current_states.payment_intent_id
    where payment_intents.status is distinct from current_states.status

),

final as (

    select * from broken
    union all
    select * from elsewhere

)

select * from final
