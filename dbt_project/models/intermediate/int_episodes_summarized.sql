{#
    Incremental: a build writes the episodes whose PaymentIntents int_payment_intents_linked has written in this build.
    An episode that no longer exists, or in which nothing failed, loses its row.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'episode_id'],
    meta={'tombstone': 'first_failed_at is null'}
) }}

{# Timestamp limits let DuckDB skip all rows that are older than the oldest linked PaymentIntent or attempt. #}
{% set is_linked = '(account_id, livemode, payment_intent_id) in
    (select account_id, livemode, payment_intent_id from linked)' %}
{% set linked_payment_intents_filter = by_rowid(
    ref('int_payment_intents_summarized'),
    is_linked ~ ' and created_at >= ' ~ oldest_new('int_payment_intents_linked', 'created_at')
) %}
{% set linked_attempts_filter = by_rowid(
    ref('int_payment_attempts_unioned'),
    is_linked ~ ' and attempted_at >= ' ~ oldest_new('int_payment_intents_linked', 'started_at')
) %}

{% set new_payment_intents_filter = by_rowid(
    ref('int_payment_intents_summarized'),
    '(account_id, livemode, payment_intent_id) in (select account_id, livemode, payment_intent_id from new_linked)'
    ~ ' and created_at >= ' ~ oldest_new('int_payment_intents_linked', 'created_at')
) %}

{% set flagged_attempts_filter = by_rowid(
    ref('int_card_tests_flagged'),
    is_linked ~ ' and attempted_at >= ' ~ oldest_new('int_payment_intents_linked', 'started_at')
) %}

with new_linked as (

    select * from {{ ref('int_payment_intents_linked') }}
    where {{ is_new_since_last_build() if is_incremental() else 'true' }}

),

failed as (

    select
        new_linked.account_id,
        new_linked.livemode,
        new_linked.episode_id
    from new_linked
    inner join {{ ref('int_payment_intents_summarized') }} as payment_intents
        on
            new_linked.account_id = payment_intents.account_id
            and new_linked.livemode = payment_intents.livemode
            and new_linked.payment_intent_id = payment_intents.payment_intent_id
    where
        payment_intents.failed_attempt_count > 0
        and {{ new_payment_intents_filter if is_incremental() else 'true' }}

),

-- Most episodes are one PaymentIntent that never failed. Leave them out before sorting.
linked as (

    select * from new_linked
    where
        (new_linked.account_id, new_linked.livemode, new_linked.episode_id) in (
            select
                failed.account_id,
                failed.livemode,
                failed.episode_id
            from failed
        )

),

-- PaymentIntents whose contradictory data would distort rates.
excluded_payment_intents as (

    select distinct
        account_id,
        livemode,
        payment_intent_id
    from {{ ref('data_issues') }}
    where is_excluded_from_rates and {{ is_linked if is_incremental() else 'true' }}

),

payment_intents as (

    select
        payment_intents.*,
        excluded_payment_intents.payment_intent_id is not null as has_excluding_issue,
        linked.episode_id,
        linked.order_key,
        linked.link_tier,
        linked.link_confidence,
        linked.episode_position
    from {{ ref('int_payment_intents_summarized') }} as payment_intents
    inner join linked
        on
            payment_intents.account_id = linked.account_id
            and payment_intents.livemode = linked.livemode
            and payment_intents.payment_intent_id = linked.payment_intent_id
    left join excluded_payment_intents
        on
            payment_intents.account_id = excluded_payment_intents.account_id
            and payment_intents.livemode = excluded_payment_intents.livemode
            and payment_intents.payment_intent_id = excluded_payment_intents.payment_intent_id
    where {{ linked_payment_intents_filter if is_incremental() else 'true' }}

),

card_tests as (

    select
        account_id,
        livemode,
        attempt_id
    from {{ ref('int_card_tests_flagged') }}
    where is_card_testing and {{ flagged_attempts_filter if is_incremental() else 'true' }}

),

attempts as (

    select
        attempts.*,
        card_tests.attempt_id is not null as is_card_testing,
        linked.episode_id,
        row_number() over (
            partition by attempts.account_id, attempts.livemode, linked.episode_id
            order by {{ attempt_order(of='attempts') }}
        ) as episode_attempt_number
    from {{ ref('int_payment_attempts_unioned') }} as attempts
    inner join linked
        on
            attempts.account_id = linked.account_id
            and attempts.livemode = linked.livemode
            and attempts.payment_intent_id = linked.payment_intent_id
    left join card_tests
        on
            attempts.account_id = card_tests.account_id
            and attempts.livemode = card_tests.livemode
            and attempts.attempt_id = card_tests.attempt_id
    where {{ linked_attempts_filter if is_incremental() else 'true' }}

),

successes as (

    select
        payment_intents.*,
        attempts.attempt_id as succeeded_attempt_id,
        attempts.episode_attempt_number as succeeded_episode_attempt_number,
        attempts.payment_method_id as succeeded_payment_method_id,
        attempts.instrument_key,
        attempts.card_exp_month,
        attempts.card_exp_year,
        attempts.card_cvc_check,
        attempts.three_d_secure_result,
        attempts.three_d_secure_flow,
        greatest(
            payment_intents.received_amount - payment_intents.refunded_amount - payment_intents.lost_dispute_amount, 0
        ) as kept_amount,
        row_number() over (
            partition by payment_intents.account_id, payment_intents.livemode, payment_intents.episode_id
            order by payment_intents.first_succeeded_at, payment_intents.payment_intent_id
        ) as success_number
    from payment_intents
    left join attempts
        on
            payment_intents.account_id = attempts.account_id
            and payment_intents.livemode = attempts.livemode
            and payment_intents.payment_intent_id = attempts.payment_intent_id
            and payment_intents.succeeded_attempt_number = attempts.attempt_number
    where payment_intents.first_succeeded_at is not null

),

-- Attempts that failed before any success. A debit that bounces after another attempt has paid is not a failed payment.
failures_numbered as (

    select
        attempts.*,
        row_number() over (
            partition by attempts.account_id, attempts.livemode, attempts.episode_id
            order by attempts.resolved_at, attempts.episode_attempt_number
        ) as failure_number
    from attempts
    left join successes
        on
            attempts.account_id = successes.account_id
            and attempts.livemode = successes.livemode
            and attempts.episode_id = successes.episode_id
            and successes.success_number = 1
    where {{ failed_before('successes') }}

),

first_failures as (

    select
        failures_numbered.*,
        coalesce(failures_numbered.amount, 0) as at_risk_amount,
        payment_intents.order_key,
        payment_intents.currency as current_currency,
        payment_intents.amount as current_amount
    from failures_numbered
    inner join payment_intents
        on
            failures_numbered.account_id = payment_intents.account_id
            and failures_numbered.livemode = payment_intents.livemode
            and failures_numbered.payment_intent_id = payment_intents.payment_intent_id
    where failures_numbered.failure_number = 1

),

-- How much of the amount at risk each payment covers. The PaymentIntent that failed covers all of it, whatever it
-- brought: the merchant accepted that amount. A payment of that PaymentIntent's current price, in any currency, also
-- covers all of it. Other payments cover their own amount, in the same currency only.
successes_with_coverage as (

    select
        successes.*,
        first_failures.currency as at_risk_currency,
        first_failures.at_risk_amount,
        successes.first_succeeded_at
        <= first_failures.resolved_at + interval '{{ checked_var("recovery_window_days") }} days' as is_in_window,
        case
            when successes.payment_intent_id = first_failures.payment_intent_id then first_failures.at_risk_amount
            when
                successes.currency = first_failures.current_currency
                and successes.amount >= first_failures.current_amount
                then first_failures.at_risk_amount
            when successes.currency = first_failures.currency then coalesce(successes.amount, 0)
            else 0
        end as covered_amount,
        successes.payment_intent_id = first_failures.payment_intent_id
        or coalesce(successes.order_key = first_failures.order_key, false) as is_strict
    from successes
    inner join first_failures
        on
            successes.account_id = first_failures.account_id
            and successes.livemode = first_failures.livemode
            and successes.episode_id = first_failures.episode_id

),

running_coverage as (

    select
        *,
        sum(covered_amount) over in_order - covered_amount as covered_before,
        sum(case when is_strict then covered_amount else 0 end) over in_order
        - case when is_strict then covered_amount else 0 end as strict_covered_before
    from successes_with_coverage
    window in_order as (
        partition by account_id, livemode, episode_id order by success_number
        rows between unbounded preceding and current row
    )

),

-- Payments count towards the debt until it is paid in full. The last of them completes it. Later payments are
-- duplicates.
payments as (

    select
        *,
        covered_before < at_risk_amount or success_number = 1 as counts_towards_debt,
        (covered_before < at_risk_amount or success_number = 1)
        and covered_before + covered_amount >= at_risk_amount as completes_debt,
        is_strict and strict_covered_before < at_risk_amount as is_strict_payment,
        is_strict
        and (strict_covered_before < at_risk_amount or at_risk_amount = 0)
        and strict_covered_before + covered_amount >= at_risk_amount as completes_debt_strictly,
        coalesce(currency = at_risk_currency, false) as is_same_currency
    from running_coverage

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
    from payments
    group by account_id, livemode, episode_id

),

completing_payments as (

    select * from payments
    where completes_debt

),

-- Attempts that failed before the debt was paid, compared with the payment that completed it.
failures as (

    select
        attempts.*,
        attempts.instrument_key = completing_payments.instrument_key as uses_paying_instrument,
        attempts.payment_method_id = completing_payments.succeeded_payment_method_id as uses_paying_method,
        coalesce(attempts.card_exp_month, 0) = coalesce(completing_payments.card_exp_month, 0)
        and coalesce(attempts.card_exp_year, 0) = coalesce(completing_payments.card_exp_year, 0) as has_same_expiry
    from attempts
    left join completing_payments
        on
            attempts.account_id = completing_payments.account_id
            and attempts.livemode = completing_payments.livemode
            and attempts.episode_id = completing_payments.episode_id
    where {{ failed_before('completing_payments') }}

),

failures_compared as (

    select
        account_id,
        livemode,
        episode_id,
        coalesce(bool_or(uses_paying_instrument), false) as is_instrument_seen,
        coalesce(bool_or(uses_paying_method), false) as is_method_seen,
        coalesce(bool_or(uses_paying_instrument and has_same_expiry), false) as is_card_unchanged,
        bool_or(coalesce(instrument_key, payment_method_id) is not null) as is_any_instrument_known,
        bool_or(failure_class = 'authentication_failed' or failure_code = 'authentication_required')
            as has_authentication_failure,
        bool_and(is_card_testing) as is_card_testing
    from failures
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

joined as (

    select
        payment_intents_summed.*,
        failures_compared.is_instrument_seen,
        failures_compared.is_method_seen,
        failures_compared.is_card_unchanged,
        failures_compared.is_any_instrument_known,
        failures_compared.has_authentication_failure,
        failures_compared.is_card_testing,
        first_failures.attempt_id as first_failed_attempt_id,
        first_failures.payment_intent_id as first_failed_payment_intent_id,
        first_failures.currency,
        first_failures.at_risk_amount,
        first_failures.resolved_at as first_failed_at,
        first_failures.is_resolved_at_estimated as is_first_failed_at_estimated,
        first_failures.failure_code,
        first_failures.failure_class,
        first_failures.decline_code,
        first_failures.advice_code,
        first_failures.network_decline_code,
        first_failures.network_advice_code,
        first_failures.payment_method_type,
        first_failures.card_brand,
        first_failures.card_funding,
        first_failures.card_country,
        first_failures.card_wallet,
        completing_payments.payment_intent_id as recovering_payment_intent_id,
        completing_payments.succeeded_attempt_id,
        completing_payments.succeeded_episode_attempt_number,
        completing_payments.succeeded_payment_method_id,
        completing_payments.instrument_key as paying_instrument_key,
        completing_payments.card_cvc_check,
        completing_payments.three_d_secure_result,
        completing_payments.three_d_secure_flow,
        completing_payments.is_tagged_as_retry,
        completing_payments.first_succeeded_at,
        completing_payments.is_first_succeeded_at_estimated,
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
    inner join first_failures
        on
            payment_intents_summed.account_id = first_failures.account_id
            and payment_intents_summed.livemode = first_failures.livemode
            and payment_intents_summed.episode_id = first_failures.episode_id
    inner join failures_compared
        on
            payment_intents_summed.account_id = failures_compared.account_id
            and payment_intents_summed.livemode = failures_compared.livemode
            and payment_intents_summed.episode_id = failures_compared.episode_id
    left join payments_summed
        on
            payment_intents_summed.account_id = payments_summed.account_id
            and payment_intents_summed.livemode = payments_summed.livemode
            and payment_intents_summed.episode_id = payments_summed.episode_id
    left join completing_payments
        on
            payment_intents_summed.account_id = completing_payments.account_id
            and payment_intents_summed.livemode = completing_payments.livemode
            and payment_intents_summed.episode_id = completing_payments.episode_id

),

final as (

    select
        -- ids
        account_id,
        livemode,
        episode_id,
        customer_id,
        first_failed_payment_intent_id,
        first_failed_attempt_id,
        recovering_payment_intent_id,
        succeeded_attempt_id as recovering_attempt_id,

        -- strings
        currency,
        link_tier,
        link_confidence,
        failure_code as first_failure_code,
        failure_class as first_failure_class,
        decline_code as first_decline_code,
        advice_code as first_advice_code,
        network_decline_code as first_network_decline_code,
        network_advice_code as first_network_advice_code,
        payment_method_type as first_payment_method_type,
        card_brand as first_card_brand,
        card_funding as first_card_funding,
        card_country as first_card_country,
        card_wallet as first_card_wallet,
        case
            when recovering_payment_intent_id is null then null
            when recovering_payment_intent_id = first_failed_payment_intent_id then 'within_intent'
            else 'cross_intent'
        end as recovery_scope,
        case
            when succeeded_attempt_id is null or not is_any_instrument_known then null
            when not is_instrument_seen and not is_method_seen
                then case when paying_instrument_key is not null then 'new_instrument' end
            when paying_instrument_key is not null and not is_card_unchanged then 'card_updated'
            when three_d_secure_result = 'authenticated' and has_authentication_failure then 'authenticated'
            else 'same_instrument_retry'
        end as recovery_method,
        case
            when succeeded_attempt_id is null then null
            when is_tagged_as_retry then 'merchant_tagged'
            when card_cvc_check is not null or three_d_secure_flow = 'challenge' then 'customer_likely'
        end as recovery_initiator,
        case
            when is_excluded and is_fraudulent then 'fraudulent'
            when is_excluded then 'duplicate'
            when has_excluding_issue then 'data_issue'
            {{ "when is_card_testing then 'card_testing'" if checked_var('exclude_card_testing') }}
        end as exclusion_reason,
        case
            when not is_canceled then null
            when has_authorized_attempt and cancellation_reason in ('automatic', 'expired')
                then 'authorization_expired'
            else coalesce(cancellation_reason, 'unspecified')
        end as canceled_reason,
        case
            when is_processing then 'processing'
            when is_awaiting_capture then 'awaiting_capture'
            when is_awaiting_customer_action then 'awaiting_customer_action'
            else 'awaiting_retry'
        end as awaiting,

        -- numerics
        payment_intent_count,
        attempt_count,
        failed_attempt_count,
        blocked_attempt_count,
        succeeded_episode_attempt_number as attempts_to_recovery,
        at_risk_amount,
        received_amount,
        received_in_window_amount,
        other_currency_received_amount,
        refunded_amount,
        lost_dispute_amount,
        duplicate_success_count,
        duplicate_kept_amount,
        strict_received_amount,
        other_currency_reversal_count,

        -- booleans
        is_canceled,
        is_strict_canceled,
        is_first_failed_at_estimated,
        is_first_succeeded_at_estimated,

        -- timestamps
        first_attempted_at,
        last_attempted_at,
        first_failed_at,
        first_paid_at,
        first_succeeded_at,
        last_reversed_at,
        strict_first_succeeded_at,
        -- Stripe's clocks differ: a cancellation may be a second before the failure that it answers.
        case when is_canceled then greatest(canceled_at, first_failed_at) end as canceled_at,

        -- the load
        {{ build_id() }} as _load_id
    from joined

    -- Tombstones: changed PaymentIntents that may have begun a failed episode before, and do not any more.
    {% if is_incremental() %}
        union all by name
        select
            new_linked.account_id,
            new_linked.livemode,
            new_linked.payment_intent_id as episode_id
        from new_linked
        where
            not exists (
                select 1 from joined
                where
                    joined.account_id = new_linked.account_id
                    and joined.livemode = new_linked.livemode
                    and joined.episode_id = new_linked.payment_intent_id
            )
    {% endif %}

)

select * from final
