{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'episode_id'],
    meta={'tombstone': 'first_failed_at is null'}
) }}

{# No payment is older than the oldest that is linked, and no attempt than the first: DuckDB passes over what is. #}
{% set is_linked = '(account_id, livemode, payment_intent_id) in
    (select account_id, livemode, payment_intent_id from linked)' %}
{% set is_payment_intent_of_linked = by_rowid(
    ref('int_payment_intents_summarized'),
    is_linked ~ ' and created_at >= ' ~ oldest_new('int_payment_intents_linked', 'created_at')
) %}
{% set is_attempt_of_linked = by_rowid(
    ref('int_payment_attempts_unioned'),
    is_linked ~ ' and attempted_at >= ' ~ oldest_new('int_payment_intents_linked', 'started_at')
) %}

{% set is_flagged_of_linked = by_rowid(
    ref('int_card_tests_flagged'),
    is_linked ~ ' and attempted_at >= ' ~ oldest_new('int_payment_intents_linked', 'started_at')
) %}

with linked as (

    select * from {{ ref('int_payment_intents_linked') }}
    where {{ is_new_since_last_build() }}

),

-- Payments with contradictory data that would distort rates.
distorting as (

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
        distorting.payment_intent_id is not null as is_distorting,
        linked.episode_id,
        linked.link_tier,
        linked.link_confidence,
        linked.episode_position
    from {{ ref('int_payment_intents_summarized') }} as payment_intents
    inner join linked
        on
            payment_intents.account_id = linked.account_id
            and payment_intents.livemode = linked.livemode
            and payment_intents.payment_intent_id = linked.payment_intent_id
    left join distorting
        on
            payment_intents.account_id = distorting.account_id
            and payment_intents.livemode = distorting.livemode
            and payment_intents.payment_intent_id = distorting.payment_intent_id
    where {{ is_payment_intent_of_linked if is_incremental() else 'true' }}

),

card_tests as (

    select
        account_id,
        livemode,
        attempt_id
    from {{ ref('int_card_tests_flagged') }}
    where is_card_testing and {{ is_flagged_of_linked if is_incremental() else 'true' }}

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
    where {{ is_attempt_of_linked if is_incremental() else 'true' }}

),

-- The first success ends the episode. Another one in it is a double payment.
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

-- What failed before anything succeeded. A debit that bounces after another attempt has paid was no failed payment.
failures as (

    select
        attempts.*,
        successes.succeeded_attempt_id,
        attempts.instrument_key = successes.instrument_key as is_of_paying_instrument,
        attempts.payment_method_id = successes.succeeded_payment_method_id as is_by_paying_method,
        coalesce(attempts.card_exp_month, 0) = coalesce(successes.card_exp_month, 0)
        and coalesce(attempts.card_exp_year, 0) = coalesce(successes.card_exp_year, 0) as is_of_same_expiry,
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
    where
        attempts.outcome = 'failed'
        and (
            successes.first_succeeded_at is null
            or (
                attempts.resolved_at <= successes.first_succeeded_at
                and attempts.episode_attempt_number
                < coalesce(successes.succeeded_episode_attempt_number, attempts.episode_attempt_number + 1)
            )
        )

),

failures_compared as (

    select
        account_id,
        livemode,
        episode_id,
        coalesce(bool_or(is_of_paying_instrument), false) as is_instrument_seen,
        coalesce(bool_or(is_by_paying_method), false) as is_method_seen,
        coalesce(bool_or(is_of_paying_instrument and is_of_same_expiry), false) as is_card_unchanged,
        bool_or(coalesce(instrument_key, payment_method_id) is not null) as is_any_instrument_known,
        bool_or(failure_class = 'authentication_failed' or failure_code = 'authentication_required')
            as has_authentication_failure,
        bool_and(is_card_testing) as is_card_testing
    from failures
    group by account_id, livemode, episode_id

),

payment_intents_summed as (

    select
        account_id,
        livemode,
        episode_id,
        min(link_tier) as link_tier,
        case
            when bool_or(link_confidence = 'medium') then 'medium'
            when bool_or(link_confidence = 'high') then 'high'
            when bool_or(link_confidence = 'exact') then 'exact'
        end as link_confidence,
        count(*) as payment_intent_count,
        cast(sum(attempt_count) as bigint) as attempt_count,
        cast(sum(failed_attempt_count) as bigint) as failed_attempt_count,
        cast(sum(blocked_attempt_count) as bigint) as blocked_attempt_count,
        count(first_succeeded_at) as success_count,
        bool_and(coalesce(status = 'canceled', false)) as is_canceled,
        bool_and(coalesce(status = 'canceled' and cancellation_reason in ('duplicate', 'fraudulent'), false))
            as is_excluded,
        bool_or(is_distorting) as is_distorting,
        bool_or(coalesce(status = 'canceled' and cancellation_reason = 'fraudulent', false)) as is_fraudulent,
        max_by(cancellation_reason, (canceled_at, payment_intent_id)) as cancellation_reason,
        max_by(has_authorized_attempt, (canceled_at, payment_intent_id)) as has_authorized_attempt,
        bool_or(status = 'processing') as is_processing,
        bool_or(status = 'requires_capture') as is_awaiting_capture,
        bool_or(status = 'requires_action') as is_awaiting_customer_action,
        min_by(customer_id, episode_position) as customer_id,
        min(first_attempted_at) as first_attempted_at,
        max(last_attempted_at) as last_attempted_at,
        max(canceled_at) as canceled_at
    from payment_intents
    group by account_id, livemode, episode_id

),

duplicates as (

    select
        account_id,
        livemode,
        episode_id,
        cast(sum(kept_amount) as bigint) as duplicate_kept_amount
    from successes
    where success_number > 1
    group by account_id, livemode, episode_id

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
        coalesce(first_failures.amount, 0) as at_risk_amount,
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
        successes.payment_intent_id as recovering_payment_intent_id,
        successes.succeeded_attempt_id,
        successes.succeeded_episode_attempt_number,
        successes.succeeded_payment_method_id,
        successes.instrument_key as paying_instrument_key,
        successes.card_cvc_check,
        successes.three_d_secure_result,
        successes.three_d_secure_flow,
        successes.is_tagged_as_retry,
        successes.received_amount,
        successes.refunded_amount,
        successes.lost_dispute_amount,
        successes.first_succeeded_at,
        successes.last_reversed_at,
        successes.is_first_succeeded_at_estimated,
        coalesce(duplicates.duplicate_kept_amount, 0) as duplicate_kept_amount,
        own.first_succeeded_at as own_first_succeeded_at,
        own.received_amount as own_received_amount,
        own.status = 'canceled' as is_own_canceled
    from payment_intents_summed
    inner join failures as first_failures
        on
            payment_intents_summed.account_id = first_failures.account_id
            and payment_intents_summed.livemode = first_failures.livemode
            and payment_intents_summed.episode_id = first_failures.episode_id
            and first_failures.failure_number = 1
    inner join failures_compared
        on
            payment_intents_summed.account_id = failures_compared.account_id
            and payment_intents_summed.livemode = failures_compared.livemode
            and payment_intents_summed.episode_id = failures_compared.episode_id
    inner join payment_intents as own
        on
            first_failures.account_id = own.account_id
            and first_failures.livemode = own.livemode
            and first_failures.payment_intent_id = own.payment_intent_id
    left join successes
        on
            payment_intents_summed.account_id = successes.account_id
            and payment_intents_summed.livemode = successes.livemode
            and payment_intents_summed.episode_id = successes.episode_id
            and successes.success_number = 1
    left join duplicates
        on
            payment_intents_summed.account_id = duplicates.account_id
            and payment_intents_summed.livemode = duplicates.livemode
            and payment_intents_summed.episode_id = duplicates.episode_id

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
            when is_distorting then 'data_issue'
            {{ "when is_card_testing then 'card_testing'" if var('exclude_card_testing') }}
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
        coalesce(received_amount, 0) as received_amount,
        coalesce(refunded_amount, 0) as refunded_amount,
        coalesce(lost_dispute_amount, 0) as lost_dispute_amount,
        greatest(success_count - 1, 0) as duplicate_success_count,
        duplicate_kept_amount,
        case when link_tier = 'explicit' then coalesce(received_amount, 0) else own_received_amount end
            as strict_received_amount,

        -- booleans
        is_canceled,
        case when link_tier = 'explicit' then is_canceled else coalesce(is_own_canceled, false) end
            as is_strict_canceled,
        is_first_failed_at_estimated,
        is_first_succeeded_at_estimated,

        -- timestamps
        first_attempted_at,
        last_attempted_at,
        first_failed_at,
        first_succeeded_at,
        last_reversed_at,
        case when link_tier = 'explicit' then first_succeeded_at else own_first_succeeded_at end
            as strict_first_succeeded_at,
        case when is_canceled then canceled_at end as canceled_at,

        -- the load
        {{ build_id() }} as _load_id
    from joined

    -- What began a failed episode until now, and no longer does, comes without a failure and is deleted by it.
    {% if is_incremental() %}
        union all by name
        select
            linked.account_id,
            linked.livemode,
            linked.payment_intent_id as episode_id
        from linked
        where
            not exists (
                select 1 from joined
                where
                    joined.account_id = linked.account_id
                    and joined.livemode = linked.livemode
                    and joined.episode_id = linked.payment_intent_id
            )
    {% endif %}

)

select * from final
