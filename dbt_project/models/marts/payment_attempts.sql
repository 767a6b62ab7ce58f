{#
    Over 150 lines, since it names all columns of an attempt.
    Incremental: a build writes all attempts of each PaymentIntent with an attempt that was numbered again, or with a
    retry that was evaluated again. An episode is numbered as a whole.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{% set changed = ['int_payment_attempts_numbered', 'int_retries_evaluated'] %}

with numbered as (

    select * from {{ ref('int_payment_attempts_numbered') }}
    where {{ in_changed_payment_intents(ref('int_payment_attempts_numbered'), models=changed) }}

),

evaluations as (

    select * from {{ ref('int_retries_evaluated') }}
    where {{ in_changed_payment_intents(ref('int_retries_evaluated'), models=changed) }}

),

unioned as (

    select
        *,
        case when outcome in ('failed', 'blocked') then {{ code_scope('payment_method_type') }} end as code_scope
    from {{ ref('int_payment_attempts_unioned') }}
    where {{ in_changed_payment_intents(ref('int_payment_attempts_unioned'), models=changed) }}

),

decline_codes as (

    select * from {{ ref('int_decline_codes_scoped') }}

),

attempts as (

    select
        attempts.*,
        case when attempts.code_scope is not null then coalesce(decline_codes.category, 'unknown') end
            as decline_category,
        decline_codes.recommended_action,
        decline_codes.fixed_by,
        decline_codes.is_hard,
        evaluations.stop_signal,
        evaluations.stop_signal_basis,
        evaluations.prior_stop_signal_attempt_id,
        evaluations.wasted_reason,
        evaluations.excess_rule_id,
        evaluations.visa_category,
        evaluations.declines_24h,
        evaluations.declines_30d_same_amount,
        evaluations.is_retried_too_early,
        evaluations.is_card_data_retry,
        evaluations.min_retry_at,
        evaluations.estimated_network_fee_amount,
        evaluations.estimated_network_fee_currency,
        currencies.exponent as currency_exponent,
        numbered.is_card_testing,
        numbered.episode_id,
        numbered.episode_attempt_number,
        numbered.previous_outcome,
        numbered.previous_failure_class,
        numbered.previous_failure_code,
        numbered.previous_advice_code,
        numbered.hours_since_previous_attempt,
        numbered.hours_since_previous_episode_attempt
    from unioned as attempts
    inner join numbered
        on
            attempts.account_id = numbered.account_id
            and attempts.livemode = numbered.livemode
            and attempts.attempt_id = numbered.attempt_id
    left join evaluations
        on
            attempts.account_id = evaluations.account_id
            and attempts.livemode = evaluations.livemode
            and attempts.attempt_id = evaluations.attempt_id
    left join decline_codes
        on
            attempts.failure_code = decline_codes.code
            and attempts.code_scope = decline_codes.code_scope
    left join {{ ref('currencies') }} as currencies
        on attempts.currency = currencies.code

),

final as (

    select
        -- ids
        account_id,
        livemode,
        attempt_id,
        payment_intent_id,
        episode_id,
        charge_id,
        customer_id,
        payment_method_id,
        instrument_key,
        prior_stop_signal_attempt_id,

        -- strings
        attempt_source,
        currency,
        outcome,
        failure_class,
        failure_code,
        code_scope,
        decline_category,
        recommended_action,
        fixed_by,
        decline_code,
        charge_failure_code,
        advice_code,
        network_status,
        network_decline_code,
        network_advice_code,
        outcome_type,
        outcome_reason,
        risk_level,
        payment_method_type,
        card_brand,
        card_network,
        card_funding,
        card_country,
        card_fingerprint,
        card_wallet,
        card_cvc_check,
        three_d_secure_result,
        three_d_secure_result_reason,
        three_d_secure_flow,
        stop_signal,
        stop_signal_basis,
        wasted_reason,
        excess_rule_id,
        estimated_network_fee_currency,
        previous_outcome,
        previous_failure_class,
        previous_failure_code,
        previous_advice_code,

        -- numerics
        attempt_number,
        episode_attempt_number,
        amount,
        {{ major_amount('amount', 'currency_exponent') }} as amount_major,
        captured_amount,
        {{ major_amount('captured_amount', 'currency_exponent') }} as captured_amount_major,
        card_exp_month,
        card_exp_year,
        visa_category,
        declines_24h,
        declines_30d_same_amount,
        estimated_network_fee_amount,
        hours_since_previous_attempt,
        hours_since_previous_episode_attempt,

        -- booleans
        coalesce(episode_attempt_number, attempt_number) > 1 as is_retry,
        advice_code is not null as has_advice_code,
        wasted_reason is not null as is_wasted_retry,
        coalesce(is_retried_too_early, false) as is_retried_too_early,
        coalesce(is_card_data_retry, false) as is_card_data_retry,
        is_hard,
        is_card_testing,
        is_charge_known,
        is_returned,
        is_attempted_at_estimated,
        is_resolved_at_estimated,

        -- timestamps
        attempted_at,
        resolved_at,
        min_retry_at,

        -- the load
        {{ build_id() }} as _load_id
    from attempts

)

select * from final
