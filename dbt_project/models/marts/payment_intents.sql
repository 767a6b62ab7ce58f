{#
    Incremental: a build writes the PaymentIntents that int_payment_intents_linked has written in this build.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{# The timestamp limit lets DuckDB skip all rows that are older than the oldest linked PaymentIntent. #}
{% set is_linked = by_rowid(
    ref('int_payment_intents_summarized'),
    '(account_id, livemode, payment_intent_id) in (select account_id, livemode, payment_intent_id from linked)
    and created_at >= ' ~ oldest_new('int_payment_intents_linked', 'created_at')
) %}

with linked as (

    select * from {{ ref('int_payment_intents_linked') }}
    where {{ is_new_since_last_build() if is_incremental() else 'true' }}

),

payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}
    where {{ is_linked if is_incremental() else 'true' }}

),

final as (

    select
        -- ids
        payment_intents.account_id,
        payment_intents.livemode,
        payment_intents.payment_intent_id,
        linked.episode_id,
        linked.predecessor_id,
        payment_intents.customer_id,
        payment_intents.invoice_id,
        payment_intents.latest_charge_id,
        payment_intents.payment_method_id,

        -- strings
        payment_intents.currency,
        payment_intents.status,
        payment_intents.capture_method,
        payment_intents.cancellation_reason,
        payment_intents.next_action_type,
        linked.order_key,
        linked.link_tier,
        linked.link_confidence,
        payment_intents.metadata,
        {{ dashboard_url('payment_intents.payment_intent_id', relation='payment_intents') }} as dashboard_url,

        -- numerics
        linked.episode_position,
        payment_intents.amount,
        {{ major_amount('payment_intents.amount', 'currencies.exponent') }} as amount_major,
        payment_intents.capturable_amount,
        payment_intents.received_amount,
        {{ major_amount('payment_intents.received_amount', 'currencies.exponent') }} as received_amount_major,
        payment_intents.refunded_amount,
        {{ major_amount('payment_intents.refunded_amount', 'currencies.exponent') }} as refunded_amount_major,
        payment_intents.disputed_amount,
        payment_intents.lost_dispute_amount,
        payment_intents.other_currency_reversal_count,
        payment_intents.attempt_count,
        payment_intents.failed_attempt_count,
        payment_intents.blocked_attempt_count,

        -- booleans
        payment_intents.attempt_count > 0 or payment_intents.is_succeeded_without_charge as is_attempted,
        coalesce(payment_intents.status = 'requires_action', false) as is_awaiting_customer_action,
        payment_intents.is_succeeded_without_charge,
        payment_intents.is_first_failed_at_estimated,
        payment_intents.is_first_succeeded_at_estimated,

        -- timestamps
        payment_intents.created_at,
        payment_intents.first_attempted_at,
        payment_intents.last_attempted_at,
        payment_intents.first_failed_at,
        payment_intents.first_succeeded_at,
        payment_intents.canceled_at,

        -- the load
        {{ build_id() }} as _load_id
    from payment_intents
    inner join linked
        on
            payment_intents.account_id = linked.account_id
            and payment_intents.livemode = linked.livemode
            and payment_intents.payment_intent_id = linked.payment_intent_id
    left join {{ ref('currencies') }} as currencies
        on payment_intents.currency = currencies.code

)

select * from final
