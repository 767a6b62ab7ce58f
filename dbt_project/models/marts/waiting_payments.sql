with waiting as (

    select * from {{ ref('int_payment_intents_waiting') }}
    where waiting_for is not null

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
        waiting_for,
        next_action_type,
        recovery_status,

        -- numerics
        amount,
        attempt_count,

        -- booleans
        has_failed,
        is_waiting_since_at_estimated,
        coalesce(waiting_for <> 'microdeposits' and next_action_at <= data_through_at, false) as is_expired,

        -- timestamps
        waiting_since_at,
        case when waiting_for = 'microdeposits' then next_action_at end as deposits_arrive_at,
        case when waiting_for <> 'microdeposits' then next_action_at end as waits_until_at
    from waiting

)

select * from final
