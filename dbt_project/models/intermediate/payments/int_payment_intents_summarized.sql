{#
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

with payment_intents as (

    select * from {{ ref('stg_stripe__payment_intents') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__payment_intents'), since='created_at') }}

),

attempts as (

    select * from {{ ref('int_payment_attempts_unioned') }}
    where {{ in_changed_payment_intents(ref('int_payment_attempts_unioned'), since='attempted_at') }}

),

reversals as (

    select * from {{ ref('int_reversals_summed') }}
    where {{ in_changed_payment_intents(ref('int_reversals_summed')) }}

),

events as (

    select * from {{ ref('stg_stripe__events') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__events'), since='created_at') }}

),

reversals_of_other_currencies as (

    select
        reversals.account_id,
        reversals.livemode,
        reversals.payment_intent_id,
        count(*) as reversal_count,
        max(reversals.last_reversed_at) as last_reversed_at
    from reversals
    inner join payment_intents
        on
            reversals.account_id = payment_intents.account_id
            and reversals.livemode = payment_intents.livemode
            and reversals.payment_intent_id = payment_intents.payment_intent_id
            and reversals.currency <> payment_intents.currency
    where reversals.refunded_amount + reversals.lost_dispute_amount > 0
    group by reversals.account_id, reversals.livemode, reversals.payment_intent_id

),

attempts_counted as (

    select
        account_id,
        livemode,
        payment_intent_id,
        count(*) as attempt_count,
        count(*) filter (where outcome = 'failed') as failed_attempt_count,
        count(*) filter (where outcome = 'blocked') as blocked_attempt_count,
        cast(sum(captured_amount) filter (where outcome = 'succeeded') as bigint) as captured_amount,
        bool_or(outcome = 'authorized') as has_authorized_attempt,
        bool_or(is_returned) as has_returned_attempt,
        min(case when outcome = 'failed' then attempt_number end) as failed_attempt_number,
        min(case when outcome = 'succeeded' then attempt_number end) as succeeded_attempt_number,
        min_by(instrument_key, attempt_number) as first_instrument_key,
        min(attempted_at) as first_attempted_at,
        max(attempted_at) as last_attempted_at,
        -- A debit fails days after the attempt, and the next attempt follows that failure.
        max(case when outcome = 'failed' then greatest(attempted_at, resolved_at) else attempted_at end)
            as last_activity_at
    from attempts
    group by account_id, livemode, payment_intent_id

),

success_events as (

    select
        account_id,
        livemode,
        object_id as payment_intent_id,
        min(created_at) as succeeded_at
    from events
    where event_type = 'payment_intent.succeeded'
    group by account_id, livemode, object_id

),

joined as (

    select
        payment_intents.*,
        attempts_counted.first_attempted_at,
        attempts_counted.last_attempted_at,
        attempts_counted.last_activity_at,
        attempts_counted.first_instrument_key,
        attempts_counted.succeeded_attempt_number,
        success_events.succeeded_at as success_event_at,
        coalesce(attempts_counted.attempt_count, 0) as attempt_count,
        coalesce(attempts_counted.failed_attempt_count, 0) as failed_attempt_count,
        coalesce(attempts_counted.blocked_attempt_count, 0) as blocked_attempt_count,
        coalesce(attempts_counted.captured_amount, 0) as captured_amount,
        coalesce(attempts_counted.has_authorized_attempt, false) as has_authorized_attempt,
        coalesce(reversals.refunded_amount, 0) as refunded_amount,
        coalesce(reversals.disputed_amount, 0) as disputed_amount,
        coalesce(reversals.lost_dispute_amount, 0) as lost_dispute_amount,
        coalesce(reversals_of_other_currencies.reversal_count, 0) as other_currency_reversal_count,
        greatest(reversals.last_reversed_at, reversals_of_other_currencies.last_reversed_at) as last_reversed_at,
        case
            when
                attempts_counted.succeeded_attempt_number is null
                or attempts_counted.failed_attempt_number < attempts_counted.succeeded_attempt_number
                then attempts_counted.failed_attempt_number
        end as first_failed_attempt_number,
        -- Stripe reports a success whose charge is unknown: it is not synced yet, or the key may not read charges.
        payment_intents.status = 'succeeded'
        and attempts_counted.succeeded_attempt_number is null
        and not coalesce(attempts_counted.has_returned_attempt, false) as is_succeeded_without_charge
    from payment_intents
    left join attempts_counted
        on
            payment_intents.account_id = attempts_counted.account_id
            and payment_intents.livemode = attempts_counted.livemode
            and payment_intents.payment_intent_id = attempts_counted.payment_intent_id
    left join success_events
        on
            payment_intents.account_id = success_events.account_id
            and payment_intents.livemode = success_events.livemode
            and payment_intents.payment_intent_id = success_events.payment_intent_id
    left join reversals
        on
            payment_intents.account_id = reversals.account_id
            and payment_intents.livemode = reversals.livemode
            and payment_intents.payment_intent_id = reversals.payment_intent_id
            and payment_intents.currency = reversals.currency
    left join reversals_of_other_currencies
        on
            payment_intents.account_id = reversals_of_other_currencies.account_id
            and payment_intents.livemode = reversals_of_other_currencies.livemode
            and payment_intents.payment_intent_id = reversals_of_other_currencies.payment_intent_id

),

resolved as (

    select
        -- ids
        joined.account_id,
        joined.livemode,
        joined.payment_intent_id,
        joined.customer_id,
        joined.invoice_id,
        joined.latest_charge_id,
        joined.payment_method_id,
        joined.first_instrument_key,
        {% for _, column in order_fields() if column != 'invoice_id' %}
            joined.{{ column }},
        {% endfor %}

        -- strings
        joined.currency,
        joined.status,
        joined.capture_method,
        joined.cancellation_reason,
        joined.payment_method_types,
        joined.next_action_type,

        -- numerics
        joined.amount,
        joined.capturable_amount,
        greatest(joined.received_amount, joined.captured_amount) as received_amount,
        joined.refunded_amount,
        joined.disputed_amount,
        joined.lost_dispute_amount,
        joined.other_currency_reversal_count,
        joined.attempt_count,
        joined.failed_attempt_count,
        joined.blocked_attempt_count,
        joined.first_failed_attempt_number,
        joined.succeeded_attempt_number,

        -- booleans
        joined.is_tagged_as_retry,
        joined.has_authorized_attempt,
        joined.is_succeeded_without_charge,
        first_failures.is_resolved_at_estimated as is_first_failed_at_estimated,
        case
            when joined.is_succeeded_without_charge then joined.success_event_at is null
            else successes.is_resolved_at_estimated
        end as is_first_succeeded_at_estimated,

        -- timestamps
        joined.created_at,
        joined.first_attempted_at,
        joined.last_attempted_at,
        joined.last_activity_at,
        joined.last_reversed_at,
        first_failures.resolved_at as first_failed_at,
        case
            when joined.is_succeeded_without_charge
                then coalesce(joined.success_event_at, joined.last_activity_at, joined.created_at)
            else successes.resolved_at
        end as first_succeeded_at,
        joined.canceled_at,
        joined.next_action_at
    from joined
    left join attempts as first_failures
        on
            joined.account_id = first_failures.account_id
            and joined.livemode = first_failures.livemode
            and joined.payment_intent_id = first_failures.payment_intent_id
            and joined.first_failed_attempt_number = first_failures.attempt_number
    left join attempts as successes
        on
            joined.account_id = successes.account_id
            and joined.livemode = successes.livemode
            and joined.payment_intent_id = successes.payment_intent_id
            and joined.succeeded_attempt_number = successes.attempt_number

),

final as (

    select
        *,
        {{ build_id() }} as _load_id
    from resolved
    {{ in_time_order('created_at') }}

)

select * from final
