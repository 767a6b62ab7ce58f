{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

with payment_intents as (

    select * from {{ ref('stg_stripe__payment_intents') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__payment_intents'), since='created_at') }}

),

events as (

    select * from {{ ref('stg_stripe__events') }}
    where
        starts_with(event_type, 'payment_intent.')
        and status is not null
        and {{ in_changed_payment_intents(ref('stg_stripe__events'), since='created_at') }}

),

told as (

    select
        account_id,
        livemode,
        object_id as payment_intent_id,
        status,
        event_type,
        event_id,
        created_at as entered_at,
        case event_type when 'payment_intent.created' then 0 else 1 end as turn,
        false as is_entered_at_estimated
    from events

),

-- Without an event, only the current status is known, and seldom when it began. Stripe may send an event with another
-- status after the cancellation: the current status begins no earlier than that event.
current_states as (

    select
        payment_intents.account_id,
        payment_intents.livemode,
        payment_intents.payment_intent_id,
        payment_intents.status,
        null as event_type,
        null as event_id,
        greatest(
            coalesce(payment_intents.canceled_at, max(told.entered_at), payment_intents.created_at),
            max(told.entered_at) filter (where told.status is distinct from payment_intents.status)
        ) as entered_at,
        2 as turn,
        payment_intents.canceled_at is null
        or coalesce(
            payment_intents.canceled_at
            < max(told.entered_at) filter (where told.status is distinct from payment_intents.status),
            false
        ) as is_entered_at_estimated
    from payment_intents
    left join told
        on
            payment_intents.account_id = told.account_id
            and payment_intents.livemode = told.livemode
            and payment_intents.payment_intent_id = told.payment_intent_id
    group by
        payment_intents.account_id, payment_intents.livemode, payment_intents.payment_intent_id,
        payment_intents.status, payment_intents.canceled_at, payment_intents.created_at

),

states as (

    select * from told
    union all
    select * from current_states

),

-- Within one second a payment is made, then asks for something, then fails, waits, or ends. The state that it is in now
-- is the last of all.
ranked as (

    select
        states.*,
        row_number() over (
            partition by states.account_id, states.livemode, states.payment_intent_id
            order by
                states.entered_at,
                states.turn,
                case
                    when states.status in ('succeeded', 'canceled') then 4
                    when states.status = payment_intents.status then 3
                    when states.status in ('processing', 'requires_capture') then 2
                    when states.event_type = 'payment_intent.payment_failed' then 1
                    else 0
                end,
                states.event_id
        ) as state_number
    from states
    left join payment_intents
        on
            states.account_id = payment_intents.account_id
            and states.livemode = payment_intents.livemode
            and states.payment_intent_id = payment_intents.payment_intent_id

),

compared as (

    select
        *,
        lag(status) over (
            partition by account_id, livemode, payment_intent_id order by state_number
        ) as status_before
    from ranked

),

final as (

    select
        -- ids
        account_id,
        livemode,
        payment_intent_id,
        event_id,

        -- strings
        status,
        status_before as previous_status,
        event_type,

        -- numerics
        row_number() over in_payment as transition_number,
        date_diff('second', entered_at, lead(entered_at) over in_payment) as seconds_in_status,

        -- booleans
        is_entered_at_estimated,
        lead(entered_at) over in_payment is null as is_current,

        -- timestamps
        entered_at,
        lead(entered_at) over in_payment as left_at,

        -- the load
        {{ build_id() }} as _load_id
    from compared
    where status is distinct from status_before
    window in_payment as (
        partition by account_id, livemode, payment_intent_id order by state_number
    )

)

select * from final
