with payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}

),

final as (

    select
        -- ids
        account_id,
        livemode,
        payment_intent_id,
        payment_intent_id as episode_id,  -- an episode is one PaymentIntent: those of one order are not linked
        customer_id,
        invoice_id,
        latest_charge_id,
        payment_method_id,

        -- strings
        currency,
        status,
        capture_method,
        cancellation_reason,

        -- numerics
        amount,
        capturable_amount,
        received_amount,
        refunded_amount,
        disputed_amount,
        lost_dispute_amount,
        attempt_count,
        failed_attempt_count,
        blocked_attempt_count,

        -- booleans
        attempt_count > 0 or is_succeeded_without_charge as is_attempted,
        coalesce(status = 'requires_action', false) as is_awaiting_customer_action,
        is_succeeded_without_charge,
        is_first_failed_at_estimated,
        is_first_succeeded_at_estimated,

        -- timestamps
        created_at,
        first_attempted_at,
        last_attempted_at,
        first_failed_at,
        first_succeeded_at,
        canceled_at
    from payment_intents

)

select * from final
