with payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}
    where first_failed_attempt_number is not null

),

attempts as (

    select * from {{ ref('int_payment_attempts_unioned') }}

),

accounts as (

    select * from {{ ref('int_streams_pivoted') }}

),

joined as (

    select
        payment_intents.*,
        first_failures.failure_code as first_failure_code,
        first_failures.failure_class as first_failure_class,
        first_failures.payment_method_type as first_payment_method_type,
        first_failures.card_brand as first_card_brand,
        first_failures.card_funding as first_card_funding,
        first_failures.card_country as first_card_country,
        first_failures.amount as at_risk_amount,
        successes.attempt_id as recovering_attempt_id,
        accounts.data_through_at,
        payment_intents.first_failed_at + interval '{{ var("recovery_window_days") }} days' as window_ends_at
    from payment_intents
    inner join attempts as first_failures
        on
            payment_intents.account_id = first_failures.account_id
            and payment_intents.livemode = first_failures.livemode
            and payment_intents.payment_intent_id = first_failures.payment_intent_id
            and payment_intents.first_failed_attempt_number = first_failures.attempt_number
    left join attempts as successes
        on
            payment_intents.account_id = successes.account_id
            and payment_intents.livemode = successes.livemode
            and payment_intents.payment_intent_id = successes.payment_intent_id
            and payment_intents.succeeded_attempt_number = successes.attempt_number
    left join accounts
        on
            payment_intents.account_id = accounts.account_id
            and payment_intents.livemode = accounts.livemode

),

classified as (

    select
        *,
        case
            when first_succeeded_at <= window_ends_at then 'recovered'
            when first_succeeded_at is not null then 'recovered_late'
            when status = 'canceled' then 'lost_canceled'
            when window_ends_at <= data_through_at then 'lost_expired'
            else 'in_recovery'
        end as recovery_status,
        -- DuckDB's least() passes over nulls: bare, it would call every lost payment recovered in full.
        case
            when first_succeeded_at is not null then least(received_amount, at_risk_amount) else 0
        end as recovered_amount,
        case
            when status = 'canceled' and cancellation_reason in ('duplicate', 'fraudulent') then cancellation_reason
        end as exclusion_reason
    from joined

),

valued as (

    select
        *,
        greatest(recovered_amount - refunded_amount - lost_dispute_amount, 0) as recovered_amount_net
    from classified

),

final as (

    select
        -- ids
        account_id,
        livemode,
        payment_intent_id as episode_id,
        payment_intent_id,
        customer_id,
        recovering_attempt_id,

        -- strings
        currency,
        recovery_status,
        case
            when recovery_status <> 'in_recovery' then null
            when status = 'requires_action' then 'awaiting_customer_action'
            when status = 'processing' then 'processing'
            when status = 'requires_capture' then 'awaiting_capture'
            else 'awaiting_retry'
        end as recovery_sub_status,
        case
            when recovery_status = 'lost_expired' then 'window_ended'
            when recovery_status <> 'lost_canceled' then null
            when has_authorized_attempt and cancellation_reason = 'automatic' then 'authorization_expired'
            else coalesce(cancellation_reason, 'unspecified')
        end as lost_reason,
        exclusion_reason,
        first_failure_code,
        first_failure_class,
        first_payment_method_type,
        first_card_brand,
        first_card_funding,
        first_card_country,

        -- numerics
        attempt_count,
        failed_attempt_count,
        succeeded_attempt_number as attempts_to_recovery,
        at_risk_amount,
        recovered_amount,
        recovered_amount_net,
        refunded_amount,
        lost_dispute_amount,

        -- booleans
        exclusion_reason is null as is_in_scope,
        coalesce(window_ends_at <= data_through_at, false) as is_matured,
        first_succeeded_at is not null and recovered_amount < at_risk_amount as is_partially_recovered,
        recovered_amount > 0 and recovered_amount_net = 0 as is_reversed,
        is_first_failed_at_estimated,
        is_first_succeeded_at_estimated,

        -- timestamps
        first_failed_at,
        first_succeeded_at,
        window_ends_at,
        canceled_at
    from valued

)

select * from final
