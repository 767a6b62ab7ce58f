{#
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows. The key is not unique: a PaymentIntent has several
    statuses, which a build replaces together.
#}
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

event_states as (

    select
        account_id,
        livemode,
        object_id as payment_intent_id,
        status,
        event_type,
        event_id,
        created_at as entered_at,
        case event_type when 'payment_intent.created' then 0 else 1 end as sort_rank,
        false as is_entered_at_estimated
    from events

),

-- Without events only the current status is known, and rarely when it began. Stripe may send an event with another
-- status after the cancellation; the current status begins no earlier than that event.
current_states as (

    select
        payment_intents.account_id,
        payment_intents.livemode,
        payment_intents.payment_intent_id,
        payment_intents.status,
        null as event_type,
        null as event_id,
        greatest(
            coalesce(payment_intents.canceled_at, max(event_states.entered_at), payment_intents.created_at),
            max(event_states.entered_at) filter (where event_states.status is distinct from payment_intents.status)
        ) as entered_at,
        2 as sort_rank,
        payment_intents.canceled_at is null
        or coalesce(
            payment_intents.canceled_at
            < max(event_states.entered_at) filter (where event_states.status is distinct from payment_intents.status),
            false
        ) as is_entered_at_estimated
    from payment_intents
    left join event_states
        on
            payment_intents.account_id = event_states.account_id
            and payment_intents.livemode = event_states.livemode
            and payment_intents.payment_intent_id = event_states.payment_intent_id
    group by
        payment_intents.account_id, payment_intents.livemode, payment_intents.payment_intent_id,
        payment_intents.status, payment_intents.canceled_at, payment_intents.created_at

),

states as (

    select * from event_states
    union all
    select * from current_states

),

-- Order of the states within one second: created, action required, failed, waiting, ended. The current state is the
-- last.
ranked as (

    select
        states.*,
        row_number() over (
            partition by states.account_id, states.livemode, states.payment_intent_id
            order by
                states.entered_at,
                states.sort_rank,
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
