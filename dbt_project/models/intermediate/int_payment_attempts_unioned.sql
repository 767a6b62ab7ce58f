{{ config(materialized='table') }}

{% set shared_columns = [
    'account_id', 'livemode', 'payment_intent_id', 'customer_id', 'payment_method_id', 'currency', 'outcome',
    'failure_class', 'failure_code', 'decline_code', 'advice_code', 'network_advice_code', 'network_decline_code',
    'payment_method_type', 'card_brand', 'card_funding', 'card_country', 'card_fingerprint', 'card_wallet', 'amount',
    'card_exp_month', 'card_exp_year', 'attempted_at'
] | join(', ') %}

with charges as (

    select * from {{ ref('int_charges_resolved') }}

),

chargeless_failures as (

    select * from {{ ref('int_chargeless_failures_deduplicated') }}

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
        three_d_secure_result,
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
        null as three_d_secure_result,
        0 as captured_amount,
        null as is_charge_known,
        false as is_returned,
        is_attempted_at_estimated,
        is_attempted_at_estimated as is_resolved_at_estimated,
        attempted_at as resolved_at
    from chargeless_failures

),

-- Stripe's seconds tie. Nothing is attempted after a success, and a failure whose time is estimated came later than the
-- charge from which it was estimated; the id makes the order the same on every run.
final as (

    select
        *,
        row_number() over (
            partition by account_id, livemode, payment_intent_id
            order by
                attempted_at,
                case when outcome = 'succeeded' then 1 else 0 end,
                is_attempted_at_estimated,
                attempt_id
        ) as attempt_number
    from unioned

)

select * from final
