{#
    Over 150 lines, since limits, waste and fees are one verdict: a fee depends on the limit and on the waste.
    Incremental: a build writes all rows of the PaymentIntents with an attempt that int_retry_windows has written again.
    A changed PaymentIntent whose attempts have lost their instrument loses its rows.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'tombstone': 'attempt_id is null'}
) }}

{% set home_country = checked_var('network_fee_country') %}
{% set changed_models = ['int_retry_signals', 'int_retry_windows'] %}

with attempts as (

    select
        *,
        last_stop['attempted_at'] >= attempted_at - interval '30 days' as has_recent_stop,
        last_visa_category_1_at >= attempted_at - interval '30 days' as has_recent_visa_category_1,
        previous_attempted_at >= attempted_at - interval '30 days' as is_soon_after_previous
    from {{ ref('int_retry_windows') }}
    where {{ in_changed_payment_intents(ref('int_retry_windows'), models=changed_models) }}

),

-- The limits are the same everywhere (region `global`). Fees depend on the merchant's region and on the card's country.
limits as (

    select * from {{ ref('network_retry_rules') }}
    where region = 'global'

),

fees as (

    select * from {{ ref('network_retry_rules') }}
    where
        region = '{{ checked_var("network_fee_region") }}'
        and fee_amount is not null

),

exceeded_limits as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.attempt_id,
        limits.rule_id,
        limits.applies_to,
        limits.window_hours
    from attempts
    inner join limits
        on
            attempts.network = limits.network
            and attempts.attempted_at >= limits.valid_from
            and attempts.attempted_at < coalesce(limits.valid_to + 1, date '9999-12-31')
    where
        case
            when limits.applies_to = 'declines_any' and limits.window_hours = 24
                then attempts.is_declined and attempts.declines_24h > limits.max_reattempts
            when limits.applies_to = 'declines_any' and limits.window_hours = 720
                then attempts.is_declined and attempts.declines_30d_same_amount > limits.max_reattempts
            when limits.applies_to = 'category_2_to_4' and limits.window_hours = 720
                then
                    attempts.visa_category is not null
                    and attempts.first_visa_decline_at < attempts.attempted_at
                    and attempts.unapproved_30d_same_amount - 1 > limits.max_reattempts
        end
    qualify
        row_number() over (
            partition by attempts.account_id, attempts.livemode, attempts.attempt_id
            order by case limits.applies_to when 'declines_any' then 0 else 1 end, limits.window_hours
        ) = 1

),

evaluated as (

    select
        attempts.*,
        case
            when
                attempts.outcome in ('failed', 'blocked')
                and attempts.has_recent_stop
                and attempts.last_stop['card_expiry'] = attempts.card_expiry
                and not (
                    attempts.last_stop['failure_code'] = 'authentication_required'
                    and coalesce(attempts.three_d_secure_result = 'authenticated', false)
                )
                then attempts.last_stop['stop_signal']
        end as wasted_reason,
        exceeded_limits.rule_id as excess_rule_id,
        exceeded_limits.applies_to as excess_applies_to,
        exceeded_limits.window_hours as excess_window_hours
    from attempts
    left join exceeded_limits
        on
            attempts.account_id = exceeded_limits.account_id
            and attempts.livemode = exceeded_limits.livemode
            and attempts.attempt_id = exceeded_limits.attempt_id

),

final as (

    select
        -- ids
        evaluated.account_id,
        evaluated.livemode,
        evaluated.attempt_id,
        evaluated.payment_intent_id,
        evaluated.instrument_key,
        case when evaluated.has_recent_stop then evaluated.last_stop['attempt_id'] end as prior_stop_signal_attempt_id,

        -- strings
        evaluated.network,
        evaluated.card_country,
        evaluated.stop_signal,
        evaluated.stop_signal_basis,
        evaluated.wasted_reason,
        evaluated.excess_rule_id,

        -- numerics
        evaluated.visa_category,
        evaluated.declines_24h,
        evaluated.declines_30d_same_amount,
        evaluated.unapproved_30d_same_amount,

        -- booleans
        coalesce(evaluated.attempted_at < evaluated.earliest_retry_at, false) as is_retried_too_early,
        coalesce(
            evaluated.outcome = 'failed'
            and evaluated.previous_outcome = 'failed'
            and evaluated.previous_advice_code = 'confirm_card_data'
            and evaluated.previous_card_expiry = evaluated.card_expiry
            and evaluated.is_soon_after_previous,
            false
        ) as is_card_data_retry,

        -- timestamps
        evaluated.attempted_at,
        evaluated.min_retry_at,
        evaluated.first_visa_decline_at,
        evaluated.last_visa_category_1_at,

        -- the load
        {{ build_id() }} as _load_id,

        -- fees
        cast(fees.fee_amount as bigint) as estimated_network_fee_amount,
        fees.fee_currency as estimated_network_fee_currency
    from evaluated
    left join fees
        on
            evaluated.network = fees.network
            and fees.applies_to = coalesce(
                evaluated.excess_applies_to,
                case
                    when evaluated.wasted_reason is not null and evaluated.has_recent_visa_category_1 then 'category_1'
                end
            )
            and fees.window_hours is not distinct from evaluated.excess_window_hours
            and fees.card_origin in (
                'any',
                case
                    when evaluated.card_country is null or '{{ home_country }}' = '' then null
                    when evaluated.card_country = '{{ home_country }}' then 'domestic'
                    else 'cross_border'
                end
            )
            and evaluated.attempted_at >= fees.valid_from
            and evaluated.attempted_at < coalesce(fees.valid_to + 1, date '9999-12-31')

)

select * from final
{% if is_incremental() %}
    -- Tombstones: a row of each changed PaymentIntent, in case all of its attempts have lost their instrument.
    union all by name
    select * from ({{ changed_payment_intents(['int_retry_signals']) }})
{% endif %}
