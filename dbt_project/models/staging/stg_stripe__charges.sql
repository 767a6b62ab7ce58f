{#
    Incremental: a build writes the rows that were loaded since the last complete build. A full build writes all rows.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'charge_id']) }}

{% set payment_method_details = {'type': 'varchar'} %}
{% for type in card_types() %}
    {% do payment_method_details.update({type: card_shape()}) %}
{% endfor %}
{% do payment_method_details.card.update({
    'checks': {'cvc_check': 'varchar', 'address_postal_code_check': 'varchar'},
    'three_d_secure': {'result': 'varchar', 'result_reason': 'varchar', 'authentication_flow': 'varchar'}
}) %}
{% do payment_method_details.update(bank_account_shapes()) %}
{% set shape = {
    'payment_intent': 'varchar', 'customer': 'varchar', 'payment_method': 'varchar',
    'currency': 'varchar', 'status': 'varchar', 'failure_code': 'varchar',
    'amount': 'bigint', 'amount_captured': 'bigint', 'captured': 'boolean',
    'outcome': {
        'type': 'varchar', 'reason': 'varchar', 'network_status': 'varchar', 'advice_code': 'varchar',
        'network_advice_code': 'varchar', 'network_decline_code': 'varchar', 'risk_level': 'varchar',
        'rule': 'varchar'
    },
    'payment_method_details': payment_method_details
} %}

with source as (

    select * from {{ source('stripe', 'charges') }}
    where {{ is_new_since_last_build() if is_incremental() else 'true' }}

),

parsed as (

    select
        *,
        {{ json_read('payload', shape) }} as doc
    from source

),

final as (

    select
        -- ids
        account_id,
        livemode,
        id as charge_id,
        {{ expandable_id('doc.payment_intent') }} as payment_intent_id,
        {{ expandable_id('doc.customer') }} as customer_id,
        {{ expandable_id('doc.payment_method') }} as payment_method_id,

        -- strings
        {{ stripe_currency('doc.currency') }} as currency,
        doc.status,
        doc.failure_code,
        doc.outcome.type as outcome_type,
        doc.outcome.reason as outcome_reason,
        doc.outcome.network_status,
        doc.outcome.advice_code,
        doc.outcome.network_advice_code,
        doc.outcome.network_decline_code,
        doc.outcome.risk_level,
        {{ expandable_id('doc.outcome.rule') }} as outcome_rule,
        doc.payment_method_details.type as payment_method_type,
        {{ card_field('doc.payment_method_details', 'brand') }} as card_brand,
        {{ card_field('doc.payment_method_details', 'funding') }} as card_funding,
        {{ card_field('doc.payment_method_details', 'country') }} as card_country,
        {{ card_field('doc.payment_method_details', 'fingerprint') }} as card_fingerprint,
        {{ card_field('doc.payment_method_details', 'network') }} as card_network,
        {{ card_field('doc.payment_method_details', 'wallet.type') }} as card_wallet,
        doc.payment_method_details.card.checks.cvc_check as card_cvc_check,
        doc.payment_method_details.card.checks.address_postal_code_check as card_postal_code_check,
        doc.payment_method_details.card.three_d_secure.result as three_d_secure_result,
        doc.payment_method_details.card.three_d_secure.result_reason as three_d_secure_result_reason,
        doc.payment_method_details.card.three_d_secure.authentication_flow as three_d_secure_flow,
        {{ bank_account_fingerprint('doc.payment_method_details') }} as bank_account_fingerprint,

        -- numerics
        {{ stripe_amount('doc.amount') }} as amount,
        coalesce({{ stripe_amount('doc.amount_captured') }}, 0) as captured_amount,
        {{ card_field('doc.payment_method_details', 'exp_month') }} as card_exp_month,
        {{ card_field('doc.payment_method_details', 'exp_year') }} as card_exp_year,

        -- booleans
        coalesce(doc.captured, false) as is_captured,

        -- timestamps
        created as created_at,

        -- the load
        _load_id
    from parsed

)

select * from final
