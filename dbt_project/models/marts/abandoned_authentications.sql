{% set pause = "interval '" ~ checked_var('authentication_abandoned_after_hours') ~ " hours'" %}

-- A payment that waits neither for money nor for a verification waits for its customer to authenticate.
with waiting as (

    select * from {{ ref('int_payment_intents_waiting') }}
    where
        waiting_for is null
        and waiting_since_at + {{ pause }} <= data_through_at

),

final as (

    select
        -- ids
        account_id,
        livemode,
        payment_intent_id,
        episode_id,
        customer_id,

        -- strings
        currency,
        next_action_type,
        recovery_status,

        -- numerics
        amount,
        attempt_count,

        -- booleans
        has_failed,
        is_waiting_since_at_estimated as is_requested_at_estimated,

        -- dates
        {{ reporting_date('waiting_since_at + ' ~ pause) }} as abandoned_date,

        -- timestamps
        waiting_since_at as requested_at,
        waiting_since_at + {{ pause }} as abandoned_at
    from waiting

)

select * from final
