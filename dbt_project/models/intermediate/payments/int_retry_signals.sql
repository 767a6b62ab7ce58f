{#
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build. A full build
    writes all rows.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

with attempts as (

    select
        *,
        lower(coalesce(card_network, card_brand)) as network
    from {{ ref('int_payment_attempts_unioned') }}
    where {{ is_new_since_last_build() }}

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

signals as (

    select
        attempts.*,
        -- A Visa code that is in no list is of category 4.
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
        end as stop_signal
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

final as (

    select
        -- ids
        account_id,
        livemode,
        attempt_id,
        payment_intent_id,
        instrument_key,

        -- strings
        currency,
        network,
        card_country,
        outcome,
        failure_code,
        advice_code,
        network_decline_code,
        three_d_secure_result,
        stop_signal,
        case stop_signal
            when 'advice_do_not_try_again' then advice_code
            when 'mastercard_advice_stop' then network_advice_code
            when 'visa_category_1' then network_decline_code
            when 'hard_code' then failure_code
        end as stop_signal_basis,

        -- numerics
        amount,
        visa_category,
        coalesce(card_exp_year, 0) * 100 + coalesce(card_exp_month, 0) as card_expiry,

        -- booleans
        outcome = 'failed' and failure_class = 'declined' as is_declined,
        {{ is_refused_by_network() }} as is_unapproved,
        is_attempted_at_estimated,

        -- timestamps
        attempted_at,
        min_retry_at,

        -- the load
        {{ build_id() }} as _load_id
    from signals
    {{ in_time_order('attempted_at') }}

)

select * from final
