{#
    Incremental: for each card or bank account with a changed attempt, a build writes that attempt and all later ones.
    An attempt that is gone, or has lost its instrument, loses its row.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'attempt_id'],
    meta={'tombstone': 'instrument_key is null'}
) }}

{% set instrument = 'account_id, livemode, instrument_key' %}
{% set purchase = 'account_id, livemode, instrument_key, currency, amount' %}
{% set home_country = checked_var('network_fee_country') %}

{#
    Earlier attempts decide about later ones, never the other way: nothing before the first changed attempt can change.
#}
{% set changed_instruments_query %}
    select {{ instrument }}, min(attempted_at) as changed_since
    from (
        select {{ instrument }}, attempted_at from {{ ref('int_payment_attempts_unioned') }}
        where {{ is_new_since_last_build() }}
        union all
        select {{ instrument }}, attempted_at from {{ this }}
        where {{ in_changed_payment_intents(this, models=['int_payment_attempts_unioned']) }}
    )
    where instrument_key is not null
    group by {{ instrument }}
{% endset %}
{% set has_changed_instrument %}
    {{ by_rowid(
        ref('int_payment_attempts_unioned'),
        '(' ~ instrument ~ ') in (select ' ~ instrument ~ ' from changed_instruments)'
    ) }}
{% endset %}

with
{% if is_incremental() %}
    changed_instruments as ({{ changed_instruments_query }}),
{% endif %}

attempts as (

    select
        *,
        lower(coalesce(card_network, card_brand)) as network
    from {{ ref('int_payment_attempts_unioned') }}
    where instrument_key is not null and {{ has_changed_instrument if is_incremental() else 'true' }}

),

decline_codes as (

    select * from {{ ref('decline_codes') }}

),

advice_codes as (

    select * from {{ ref('mastercard_advice_codes') }}

),

visa_codes as (

    select
        *,
        lead(valid_from) over (partition by response_code order by valid_from) as valid_before
    from {{ ref('visa_decline_categories') }}

),

-- What the response to a failed attempt says about another try. A Visa code that no list has is of category 4.
attempt_signals as (

    select
        attempts.*,
        case
            when attempts.outcome = 'failed' and attempts.network = 'visa' and attempts.network_decline_code is not null
                then cast(coalesce(visa_codes.category, 4) as bigint)
        end as visa_category,
        case
            when attempts.outcome = 'failed'
                then attempts.attempted_at + to_hours(advice_codes.retry_after_hours)
        end as min_retry_at,
        case
            when attempts.outcome <> 'failed' then null
            when attempts.advice_code = 'do_not_try_again' then 'advice_do_not_try_again'
            when advice_codes.is_stop then 'mastercard_advice_stop'
            when attempts.network = 'visa' and visa_codes.category = 1 then 'visa_category_1'
            when decline_codes.is_hard then 'hard_code'
        end as stop_signal,
        attempts.outcome = 'failed' and attempts.failure_class = 'declined' as is_declined
    from attempts
    left join advice_codes
        on
            attempts.network = 'mastercard'
            and attempts.network_advice_code = advice_codes.advice_code
    left join visa_codes
        on
            attempts.network_decline_code = visa_codes.response_code
            and attempts.attempted_at >= visa_codes.valid_from
            and attempts.attempted_at < coalesce(visa_codes.valid_before, date '9999-12-31')
    left join decline_codes
        on
            attempts.failure_code = decline_codes.code
            and decline_codes.scope = case
                when attempts.payment_method_type in {{ bank_debits() }} then 'bank_debit' else 'card'
            end

),

numbered as (

    select
        *,
        row_number() over (partition by {{ purchase }} order by {{ attempt_order() }}) as purchase_attempt_number
    from attempt_signals

),

with_earlier_attempts as (

    select
        *,
        last_value(case when stop_signal is not null then attempt_id end ignore nulls) over earlier_attempts
            as last_stop_attempt_id,
        max(case when stop_signal is not null then attempted_at end) over earlier_attempts as last_stop_at,
        max(min_retry_at) over earlier_attempts as earliest_retry_at,
        max(case when visa_category = 1 then attempted_at end) over earlier_attempts as last_visa_category_1_at,
        lag(advice_code) over in_order as previous_advice_code,
        lag(outcome) over in_order as previous_outcome,
        lag(attempted_at) over in_order as previous_attempted_at,
        lag(coalesce(card_exp_year, 0) * 100 + coalesce(card_exp_month, 0)) over in_order as previous_expiry,
        min(case when visa_category between 2 and 4 then attempted_at end) over (
            partition by {{ purchase }} order by attempted_at
            range between interval '30 days' preceding and current row
        ) as first_visa_decline_at
    from numbered
    window
        in_order as (partition by {{ purchase }} order by purchase_attempt_number),
        earlier_attempts as (
            partition by {{ purchase }} order by purchase_attempt_number
            rows between unbounded preceding and 1 preceding
        )

),

counted as (

    select
        *,
        count(*) filter (where is_declined) over (
            partition by {{ instrument }} order by attempted_at
            range between interval '24 hours' preceding and current row
        ) as declines_24h,
        count(*) filter (where is_declined) over (
            partition by {{ purchase }} order by attempted_at
            range between interval '30 days' preceding and current row
        ) as declines_30d_same_amount,
        count(*) filter (where {{ is_refused_by_network() }}) over (
            partition by {{ purchase }} order by attempted_at
            range between interval '30 days' preceding and current row
        ) as unapproved_30d_same_amount
    from with_earlier_attempts

),

-- The limits are the same everywhere (region `global`). Fees depend on the merchant's region and on the card's country.
rules as (

    select * from {{ ref('network_retry_rules') }}
    where region = 'global'

),

stop_signals as (

    select
        account_id,
        livemode,
        attempt_id,
        stop_signal,
        failure_code,
        coalesce(card_exp_year, 0) * 100 + coalesce(card_exp_month, 0) as expiry
    from attempt_signals
    where stop_signal is not null

),

evaluated as (

    select
        -- ids
        counted.account_id,
        counted.livemode,
        counted.attempt_id,
        counted.payment_intent_id,
        counted.instrument_key,
        case
            when counted.last_stop_at >= counted.attempted_at - interval '30 days' then counted.last_stop_attempt_id
        end as prior_stop_signal_attempt_id,

        -- strings
        counted.network,
        counted.card_country,
        counted.stop_signal,
        case counted.stop_signal
            when 'advice_do_not_try_again' then counted.advice_code
            when 'mastercard_advice_stop' then counted.network_advice_code
            when 'visa_category_1' then counted.network_decline_code
            when 'hard_code' then counted.failure_code
        end as stop_signal_basis,
        case
            when
                counted.outcome in ('failed', 'blocked')
                and counted.last_stop_at >= counted.attempted_at - interval '30 days'
                and stop_signals.expiry = coalesce(counted.card_exp_year, 0) * 100 + coalesce(counted.card_exp_month, 0)
                and not (
                    stop_signals.failure_code = 'authentication_required'
                    and coalesce(counted.three_d_secure_result = 'authenticated', false)
                )
                then stop_signals.stop_signal
        end as wasted_reason,

        case
            when counted.is_declined and counted.declines_24h > daily_rules.max_reattempts then daily_rules.rule_id
            when
                counted.is_declined and counted.declines_30d_same_amount > monthly_rules.max_reattempts
                then monthly_rules.rule_id
            when
                counted.visa_category is not null
                and counted.first_visa_decline_at < counted.attempted_at
                and counted.unapproved_30d_same_amount - 1 > visa_rules.max_reattempts
                then visa_rules.rule_id
        end as excess_rule_id,

        -- numerics
        counted.visa_category,
        counted.declines_24h,
        counted.declines_30d_same_amount,
        counted.unapproved_30d_same_amount,

        -- booleans
        coalesce(counted.attempted_at < counted.earliest_retry_at, false) as is_retried_too_early,
        coalesce(
            counted.previous_outcome = 'failed'
            and counted.previous_attempted_at >= counted.attempted_at - interval '30 days'
            and counted.previous_advice_code = 'confirm_card_data'
            and counted.previous_expiry
            = coalesce(counted.card_exp_year, 0) * 100 + coalesce(counted.card_exp_month, 0)
            and counted.outcome = 'failed',
            false
        ) as is_card_data_retry,

        -- timestamps
        counted.attempted_at,
        counted.min_retry_at,
        counted.first_visa_decline_at,
        counted.last_visa_category_1_at,

        -- the load
        {{ build_id() }} as _load_id
    from counted
    left join stop_signals
        on
            counted.account_id = stop_signals.account_id
            and counted.livemode = stop_signals.livemode
            and counted.last_stop_attempt_id = stop_signals.attempt_id
    {% for name, applies_to, hours in [
        ('daily_rules', 'declines_any', 24), ('monthly_rules', 'declines_any', 720),
        ('visa_rules', 'category_2_to_4', 720)
    ] %}
        left join rules as {{ name }}
            on
                counted.network = {{ name }}.network
                and {{ name }}.applies_to = '{{ applies_to }}'
                and {{ name }}.window_hours = {{ hours }}
                and counted.attempted_at >= {{ name }}.valid_from
                and counted.attempted_at < coalesce({{ name }}.valid_to + 1, date '9999-12-31')
    {% endfor %}
    {% if is_incremental() %}
        inner join changed_instruments
            on
                counted.account_id = changed_instruments.account_id
                and counted.livemode = changed_instruments.livemode
                and counted.instrument_key = changed_instruments.instrument_key
                and counted.attempted_at >= changed_instruments.changed_since
        -- Tombstones: evaluated attempts that are gone, or have lost their instrument.
        union all by name
        select
            account_id,
            livemode,
            attempt_id,
            payment_intent_id
        from {{ this }} as existing
        where
            {{ in_changed_payment_intents(this, models=['int_payment_attempts_unioned']) }}
            and not exists (
                select 1 from counted
                where
                    counted.account_id = existing.account_id
                    and counted.livemode = existing.livemode
                    and counted.attempt_id = existing.attempt_id
            )
    {% endif %}

),

fees as (

    select * from {{ ref('network_retry_rules') }}
    where
        region = '{{ checked_var("network_fee_region") }}'
        and fee_amount is not null

),

final as (

    select
        evaluated.*,
        cast(fees.fee_amount as bigint) as estimated_network_fee_amount,
        fees.fee_currency as estimated_network_fee_currency
    from evaluated
    left join rules as exceeded_rules
        on evaluated.excess_rule_id = exceeded_rules.rule_id
    left join fees
        on
            evaluated.network = fees.network
            and fees.applies_to = coalesce(
                exceeded_rules.applies_to,
                case
                    when
                        evaluated.wasted_reason is not null
                        and evaluated.last_visa_category_1_at >= evaluated.attempted_at - interval '30 days'
                        then 'category_1'
                end
            )
            and fees.window_hours is not distinct from exceeded_rules.window_hours
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
