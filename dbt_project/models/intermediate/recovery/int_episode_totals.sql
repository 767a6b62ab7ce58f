{# The PaymentIntents and the payments of each episode, summed. #}
{{ config(materialized='ephemeral', meta={'part_of': 'int_episodes_summarized'}) }}

with payment_intents as (

    select * from {{ ref('int_episode_payment_intents') }}

),

first_failures as (

    select * from {{ ref('int_episode_first_failures') }}

),

payments_summed as (

    select
        account_id,
        livemode,
        episode_id,
        count(case when not counts_towards_debt then 1 end) as duplicate_success_count,
        cast(sum(case when counts_towards_debt and is_same_currency then received_amount else 0 end) as bigint)
            as received_amount,
        cast(
            sum(case when counts_towards_debt and is_same_currency and is_in_window then received_amount else 0 end)
            as bigint
        ) as received_in_window_amount,
        cast(sum(case when counts_towards_debt and not is_same_currency then received_amount else 0 end) as bigint)
            as other_currency_received_amount,
        cast(sum(case when counts_towards_debt and is_same_currency then refunded_amount else 0 end) as bigint)
            as refunded_amount,
        cast(sum(case when counts_towards_debt and is_same_currency then lost_dispute_amount else 0 end) as bigint)
            as lost_dispute_amount,
        cast(sum(case when not counts_towards_debt and is_same_currency then kept_amount else 0 end) as bigint)
            as duplicate_kept_amount,
        cast(sum(case when is_strict_payment and is_same_currency then received_amount else 0 end) as bigint)
            as strict_received_amount,
        cast(sum(case when counts_towards_debt then other_currency_reversal_count else 0 end) as bigint)
            as other_currency_reversal_count,
        max(case when counts_towards_debt then last_reversed_at end) as last_reversed_at,
        min(first_succeeded_at) as first_paid_at,
        min(case when completes_debt_strictly then first_succeeded_at end) as strict_first_succeeded_at
    from {{ ref('int_episode_payments') }}
    group by account_id, livemode, episode_id

),

payment_intents_summed as (

    select
        payment_intents.account_id,
        payment_intents.livemode,
        payment_intents.episode_id,
        {{ weakest('payment_intents.link_tier', ['customer', 'card', 'order_part', 'order'], 'none') }} as link_tier,
        {{ weakest('payment_intents.link_confidence', ['low', 'medium', 'high', 'exact']) }} as link_confidence,
        count(*) as payment_intent_count,
        cast(sum(payment_intents.attempt_count) as bigint) as attempt_count,
        cast(sum(payment_intents.failed_attempt_count) as bigint) as failed_attempt_count,
        cast(sum(payment_intents.blocked_attempt_count) as bigint) as blocked_attempt_count,
        bool_and(coalesce(payment_intents.status = 'canceled', false)) as is_canceled,
        bool_and(
            coalesce(payment_intents.status = 'canceled', false)
            or not (
                payment_intents.payment_intent_id = first_failures.payment_intent_id
                or coalesce(payment_intents.order_key = first_failures.order_key, false)
            )
        ) as is_strict_canceled,
        bool_and(coalesce(
            payment_intents.status = 'canceled'
            and payment_intents.cancellation_reason in ('duplicate', 'fraudulent'), false
        )) as is_excluded,
        bool_or(payment_intents.has_excluding_issue) as has_excluding_issue,
        bool_or(coalesce(
            payment_intents.status = 'canceled' and payment_intents.cancellation_reason = 'fraudulent', false
        )) as is_fraudulent,
        max_by(
            payment_intents.cancellation_reason, (payment_intents.canceled_at, payment_intents.payment_intent_id)
        ) as cancellation_reason,
        max_by(
            payment_intents.has_authorized_attempt, (payment_intents.canceled_at, payment_intents.payment_intent_id)
        ) as has_authorized_attempt,
        bool_or(payment_intents.status = 'processing') as is_processing,
        bool_or(payment_intents.status = 'requires_capture') as is_awaiting_capture,
        bool_or(payment_intents.status = 'requires_action') as is_awaiting_customer_action,
        min_by(payment_intents.customer_id, payment_intents.episode_position) as customer_id,
        min(payment_intents.first_attempted_at) as first_attempted_at,
        max(payment_intents.last_attempted_at) as last_attempted_at,
        max(payment_intents.canceled_at) as canceled_at
    from payment_intents
    inner join first_failures
        on
            payment_intents.account_id = first_failures.account_id
            and payment_intents.livemode = first_failures.livemode
            and payment_intents.episode_id = first_failures.episode_id
    group by payment_intents.account_id, payment_intents.livemode, payment_intents.episode_id

),

final as (

    select
        payment_intents_summed.*,
        payments_summed.last_reversed_at,
        payments_summed.first_paid_at,
        payments_summed.strict_first_succeeded_at,
        coalesce(payments_summed.received_amount, 0) as received_amount,
        coalesce(payments_summed.received_in_window_amount, 0) as received_in_window_amount,
        coalesce(payments_summed.other_currency_received_amount, 0) as other_currency_received_amount,
        coalesce(payments_summed.refunded_amount, 0) as refunded_amount,
        coalesce(payments_summed.lost_dispute_amount, 0) as lost_dispute_amount,
        coalesce(payments_summed.duplicate_success_count, 0) as duplicate_success_count,
        coalesce(payments_summed.duplicate_kept_amount, 0) as duplicate_kept_amount,
        coalesce(payments_summed.strict_received_amount, 0) as strict_received_amount,
        coalesce(payments_summed.other_currency_reversal_count, 0) as other_currency_reversal_count
    from payment_intents_summed
    left join payments_summed
        on
            payment_intents_summed.account_id = payments_summed.account_id
            and payment_intents_summed.livemode = payments_summed.livemode
            and payment_intents_summed.episode_id = payments_summed.episode_id

)

select * from final
