{#
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

    select * from {{ ref('int_payment_attempts_unioned') }}
    where {{ in_changed_payment_intents(ref('int_payment_attempts_unioned'), models=changed) }}

),

attempts as (

    select
        attempts.*,
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
        numbered.is_card_testing,
        numbered.episode_id,
        numbered.episode_attempt_number,
        numbered.previous_outcome,
        numbered.previous_failure_class,
        numbered.previous_advice_code,
        numbered.hours_since_previous_attempt
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
        previous_advice_code,

        -- numerics
        attempt_number,
        episode_attempt_number,
        amount,
        captured_amount,
        card_exp_month,
        card_exp_year,
        visa_category,
        declines_24h,
        declines_30d_same_amount,
        estimated_network_fee_amount,
        hours_since_previous_attempt,

        -- booleans
        coalesce(episode_attempt_number, attempt_number) > 1 as is_retry,
        advice_code is not null as has_advice_code,
        wasted_reason is not null as is_wasted_retry,
        coalesce(is_retried_too_early, false) as is_retried_too_early,
        coalesce(is_card_data_retry, false) as is_card_data_retry,
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
