{#
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows. The key is not unique: a PaymentIntent has several
    attempts, which a build replaces together.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{% set shared_columns = [
    'account_id', 'livemode', 'payment_intent_id', 'customer_id', 'payment_method_id', 'currency', 'outcome',
    'failure_class', 'failure_code', 'decline_code', 'advice_code', 'network_advice_code', 'network_decline_code',
    'payment_method_type', 'card_brand', 'card_funding', 'card_country', 'card_fingerprint', 'card_wallet',
    'bank_account_fingerprint', 'amount', 'card_exp_month', 'card_exp_year', 'attempted_at'
] | join(', ') %}

with charges as (

    select * from {{ ref('int_charges_resolved') }}
    where {{ in_changed_payment_intents(ref('int_charges_resolved'), since='attempted_at') }}

),

chargeless_failures as (

    select * from {{ ref('int_chargeless_failures_deduplicated') }}
    where {{ in_changed_payment_intents(ref('int_chargeless_failures_deduplicated')) }}

),

unioned as (

    select
        {{ shared_columns }},
        charge_id as attempt_id,
        charge_id,
        'charge' as attempt_source,
        charge_failure_code,
        outcome_type,
        outcome_reason,
        network_status,
        risk_level,
        card_network,
        card_cvc_check,
        three_d_secure_result,
        three_d_secure_result_reason,
        three_d_secure_flow,
        captured_amount,
        is_charge_known,
        is_returned,
        is_attempted_at_estimated,
        is_resolved_at_estimated,
        resolved_at
    from charges
    union all
    select
        {{ shared_columns }},
        attempt_id,
        null as charge_id,
        attempt_source,
        null as charge_failure_code,
        null as outcome_type,
        null as outcome_reason,
        null as network_status,
        null as risk_level,
        null as card_network,
        null as card_cvc_check,
        null as three_d_secure_result,
        null as three_d_secure_result_reason,
        null as three_d_secure_flow,
        0 as captured_amount,
        null as is_charge_known,
        false as is_returned,
        is_attempted_at_estimated,
        is_attempted_at_estimated as is_resolved_at_estimated,
        attempted_at as resolved_at
    from chargeless_failures

),

final as (

    select
        *,
        coalesce(card_fingerprint, bank_account_fingerprint) as instrument_key,
        row_number() over (
            partition by account_id, livemode, payment_intent_id order by {{ attempt_order() }}
        ) as attempt_number,
        {{ build_id() }} as _load_id
    from unioned
    {{ in_time_order('attempted_at') }}

)

select * from final
