{#
    Incremental: a build writes the episodes that int_episodes_summarized has written in this build, and those whose
    recovery window has ended since the last one. An episode that no longer exists loses its row.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'episode_id'],
    meta={'tombstone': 'first_failed_at is null'}
) }}

{# Declares the dependency: dbt does not see a reference inside a condition. #}
{% set payment_intents_linked = ref('int_payment_intents_linked') %}

{# An episode changes if new data arrive, or if its window has ended. #}
{% set is_new_or_newly_matured %}
    (account_id, livemode, episode_id) in (
        select
            existing.account_id,
            existing.livemode,
            existing.episode_id
        from {{ this }} as existing
        left join accounts
            on existing.account_id = accounts.account_id and existing.livemode = accounts.livemode
        where existing.is_matured <> coalesce(existing.window_ends_at <= accounts.data_through_at, false)
    )
    or {{ is_new_since_last_build() }}
{% endset %}

with accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

episodes as (

    select
        *,
        {{ code_scope('first_payment_method_type') }} as first_code_scope
    from {{ ref('int_episodes_summarized') }}
    where {{ by_rowid(ref('int_episodes_summarized'), is_new_or_newly_matured) if is_incremental() else 'true' }}

),

decline_codes as (

    select * from {{ ref('int_decline_codes_scoped') }}

),

joined as (

    select
        episodes.*,
        decline_codes.recommended_action as first_recommended_action,
        decline_codes.fixed_by as first_fixed_by,
        coalesce(decline_codes.category, 'unknown') as first_decline_category,
        accounts.data_through_at,
        currencies.exponent as currency_exponent,
        episodes.first_failed_at + interval '{{ checked_var("recovery_window_days") }} days' as window_ends_at
    from episodes
    left join accounts
        on
            episodes.account_id = accounts.account_id
            and episodes.livemode = accounts.livemode
    left join decline_codes
        on
            episodes.first_failure_code = decline_codes.code
            and episodes.first_code_scope = decline_codes.code_scope
    left join {{ ref('currencies') }} as currencies
        on episodes.currency = currencies.code

),

classified as (

    select
        *,
        {{ recovery_status('first_succeeded_at', 'is_canceled') }} as recovery_status,
        {{ recovery_status('strict_first_succeeded_at', 'is_strict_canceled') }} as recovery_status_strict,
        least(received_amount, at_risk_amount) as recovered_amount,
        least(received_in_window_amount, at_risk_amount) as recovered_in_window_amount,
        least(strict_received_amount, at_risk_amount) as recovered_amount_strict,
        greatest(received_amount - at_risk_amount, 0) as recovered_excess_amount
    from joined

),

-- A customer who paid twice and got one payment refunded has paid once, whichever payment was refunded.
with_net_amount as (

    select
        *,
        least(
            recovered_amount,
            greatest(recovered_amount - refunded_amount - lost_dispute_amount, 0) + duplicate_kept_amount
        ) as recovered_amount_net
    from classified

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
        recovering_attempt_id,

        -- strings
        currency,
        recovery_status,
        recovery_status_strict,
        case when recovery_status = 'in_recovery' then awaiting end as recovery_sub_status,
        case
            when recovery_status = 'lost_expired' then 'window_ended'
            when recovery_status = 'lost_canceled' then canceled_reason
        end as lost_reason,
        exclusion_reason,
        link_tier,
        link_confidence,
        recovery_scope,
        recovery_method,
        recovery_initiator,
        first_failure_code,
        first_failure_class,
        first_code_scope,
        first_decline_category,
        first_recommended_action,
        first_fixed_by,
        first_decline_code,
        first_advice_code,
        first_network_decline_code,
        first_network_advice_code,
        first_payment_method_type,
        first_card_brand,
        first_card_funding,
        first_card_country,
        first_card_wallet,
        metadata,
        {{ dashboard_url('first_failed_payment_intent_id') }} as dashboard_url,
        experiment_arm,

        -- numerics
        payment_intent_count,
        attempt_count,
        failed_attempt_count,
        attempts_to_recovery,
        duplicate_success_count,
        at_risk_amount,
        {{ major_amount('at_risk_amount', 'currency_exponent') }} as at_risk_amount_major,
        recovered_amount,
        {{ major_amount('recovered_amount', 'currency_exponent') }} as recovered_amount_major,
        recovered_in_window_amount,
        recovered_amount_net,
        {{ major_amount('recovered_amount_net', 'currency_exponent') }} as recovered_amount_net_major,
        recovered_amount_strict,
        recovered_excess_amount,
        other_currency_received_amount,
        refunded_amount,
        lost_dispute_amount,
        other_currency_reversal_count,
        date_diff('second', first_failed_at, first_succeeded_at) / 86400.0 as days_to_recovery,

        -- booleans
        exclusion_reason is null as is_in_scope,
        has_several_experiment_arms,
        coalesce(window_ends_at <= data_through_at, false) as is_matured,
        recovered_amount < at_risk_amount
        and (first_succeeded_at is not null or recovered_amount > 0) as is_partially_recovered,
        recovered_amount > 0 and recovered_amount_net = 0 as is_reversed,
        is_first_failed_at_estimated,
        is_first_succeeded_at_estimated,

        -- dates
        {{ reporting_date('first_failed_at') }} as first_failed_date,

        -- timestamps
        first_failed_at,
        first_paid_at,
        first_succeeded_at,
        last_reversed_at,
        window_ends_at,
        canceled_at,

        -- the load
        {{ build_id() }} as _load_id
    from with_net_amount

    -- Tombstones: changed PaymentIntents that began a failed episode at the last build, and do not any more.
    {% if is_incremental() %}
        union all by name
        select
            existing.account_id,
            existing.livemode,
            existing.episode_id
        from {{ this }} as existing
        where
            (existing.account_id, existing.livemode, existing.episode_id) in (
                select
                    linked.account_id,
                    linked.livemode,
                    linked.payment_intent_id
                from {{ payment_intents_linked }} as linked
                where linked._load_id >= {{ first_load_id() }}
            )
            and not exists (
                select 1 from {{ ref('int_episodes_summarized') }} as summarized
                where
                    summarized.account_id = existing.account_id
                    and summarized.livemode = existing.livemode
                    and summarized.episode_id = existing.episode_id
            )
    {% endif %}

)

select * from final
