-- The transitions of a payment are numbered without gaps, follow each other in time without holes, and the last one led
-- to the status in which the payment is.
{{ config(meta={'dagster': {'ref': {'name': 'payment_intent_status_history'}}}) }}

with history as (

    select
        *,
        lag(transition_number, 1, 0) over of_payment as number_before,
        lag(left_at) over of_payment as left_before_at,
        lag(status) over of_payment as status_before
    from {{ ref('payment_intent_status_history') }}
    window of_payment as (partition by account_id, livemode, payment_intent_id order by transition_number)

)

select
    payment_intents.payment_intent_id,
    payment_intents.status,
    history.transition_number,
    history.status as status_in_history,
    history.entered_at,
    history.left_at
from history
full outer join {{ ref('payment_intents') }} as payment_intents
    on
        history.account_id = payment_intents.account_id
        and history.livemode = payment_intents.livemode
        and history.payment_intent_id = payment_intents.payment_intent_id
        and history.is_current
where
    history.transition_number <> history.number_before + 1
    or (history.payment_intent_id is not null and history.status is not distinct from history.status_before)
    or history.previous_status is distinct from history.status_before
    or history.entered_at is distinct from coalesce(history.left_before_at, history.entered_at)
    or history.left_at < history.entered_at
    or payment_intents.status is distinct from case when history.is_current then history.status end
    and (history.is_current or history.payment_intent_id is null)
