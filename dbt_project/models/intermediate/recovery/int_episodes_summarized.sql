{#
    Incremental: a build writes the episodes whose PaymentIntents int_payment_intents_linked has written in this build.
    An episode that no longer exists, or in which nothing failed, loses its row.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'episode_id'],
    meta={'tombstone': 'first_failed_at is null'}
) }}

{# Declares the dependency: dbt does not see a reference inside a condition. #}
{% set linked = ref('int_payment_intents_linked') %}

with first_failures as (

    select * from {{ ref('int_episode_first_failures') }}

),

recoveries as (

    select * from {{ ref('int_episode_recoveries') }}

),

totals as (

    select * from {{ ref('int_episode_totals') }}

),

final as (

    select
        -- ids
        first_failures.account_id,
        first_failures.livemode,
        first_failures.episode_id,
        totals.customer_id,
        first_failures.payment_intent_id as first_failed_payment_intent_id,
        first_failures.attempt_id as first_failed_attempt_id,
        recoveries.recovering_payment_intent_id,
        recoveries.recovering_attempt_id,

        -- strings
        first_failures.currency,
        totals.link_tier,
        totals.link_confidence,
        first_failures.failure_code as first_failure_code,
        first_failures.failure_class as first_failure_class,
        first_failures.decline_code as first_decline_code,
        first_failures.advice_code as first_advice_code,
        first_failures.network_decline_code as first_network_decline_code,
        first_failures.network_advice_code as first_network_advice_code,
        first_failures.payment_method_type as first_payment_method_type,
        first_failures.card_brand as first_card_brand,
        first_failures.card_funding as first_card_funding,
        first_failures.card_country as first_card_country,
        first_failures.card_wallet as first_card_wallet,
        recoveries.recovery_scope,
        recoveries.recovery_method,
        recoveries.recovery_initiator,
        case
            when totals.is_excluded and totals.is_fraudulent then 'fraudulent'
            when totals.is_excluded then 'duplicate'
            when totals.has_excluding_issue then 'data_issue'
            {{ "when recoveries.is_card_testing then 'card_testing'" if checked_var('exclude_card_testing') }}
        end as exclusion_reason,
        case
            when not totals.is_canceled then null
            when totals.has_authorized_attempt and totals.cancellation_reason in ('automatic', 'expired')
                then 'authorization_expired'
            else coalesce(totals.cancellation_reason, 'unspecified')
        end as canceled_reason,
        case
            when totals.is_processing then 'processing'
            when totals.is_awaiting_capture then 'awaiting_capture'
            when totals.is_awaiting_customer_action then 'awaiting_customer_action'
            else 'awaiting_retry'
        end as awaiting,

        -- numerics
        totals.payment_intent_count,
        totals.attempt_count,
        totals.failed_attempt_count,
        totals.blocked_attempt_count,
        recoveries.attempts_to_recovery,
        first_failures.at_risk_amount,
        totals.received_amount,
        totals.received_in_window_amount,
        totals.other_currency_received_amount,
        totals.refunded_amount,
        totals.lost_dispute_amount,
        totals.duplicate_success_count,
        totals.duplicate_kept_amount,
        totals.strict_received_amount,
        totals.other_currency_reversal_count,

        -- booleans
        totals.is_canceled,
        totals.is_strict_canceled,
        first_failures.is_resolved_at_estimated as is_first_failed_at_estimated,
        recoveries.is_first_succeeded_at_estimated,

        -- timestamps
        totals.first_attempted_at,
        totals.last_attempted_at,
        first_failures.resolved_at as first_failed_at,
        totals.first_paid_at,
        recoveries.first_succeeded_at,
        totals.last_reversed_at,
        totals.strict_first_succeeded_at,
        -- Stripe's clocks differ: a cancellation may be a second before the failure that it answers.
        case when totals.is_canceled then greatest(totals.canceled_at, first_failures.resolved_at) end as canceled_at,

        -- the load
        {{ build_id() }} as _load_id
    from first_failures
    inner join recoveries
        on
            first_failures.account_id = recoveries.account_id
            and first_failures.livemode = recoveries.livemode
            and first_failures.episode_id = recoveries.episode_id
    inner join totals
        on
            first_failures.account_id = totals.account_id
            and first_failures.livemode = totals.livemode
            and first_failures.episode_id = totals.episode_id

    -- Tombstones: changed PaymentIntents that may have begun a failed episode before, and do not any more.
    {% if is_incremental() %}
        union all by name
        select
            account_id,
            livemode,
            payment_intent_id as episode_id
        from {{ linked }} as linked
        where
            {{ is_new_since_last_build() }}
            and not exists (
                select 1 from first_failures
                where
                    first_failures.account_id = linked.account_id
                    and first_failures.livemode = linked.livemode
                    and first_failures.episode_id = linked.payment_intent_id
            )
    {% endif %}

)

select * from final
