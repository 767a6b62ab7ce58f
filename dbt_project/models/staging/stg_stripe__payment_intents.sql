{#
    Incremental: a build writes the rows that were loaded since the last complete build. A full build writes all rows.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{#
    The timestamp field of each next action of a waiting payment: when the payment expires, when the card is charged, or
    when the microdeposits arrive. Bank transfers and the QR codes of PayNow, PromptPay and WeChat Pay have none.
#}
{% set instants = {
    'boleto_display_details': 'expires_at',
    'card_await_notification': 'charge_attempt_at',
    'konbini_display_details': 'expires_at',
    'multibanco_display_details': 'expires_at',
    'oxxo_display_details': 'expires_after',
    'pix_display_qr_code': 'expires_at',
    'verify_with_microdeposits': 'arrival_date',
} %}
{% set next_action = {'type': 'varchar'} %}
{% set next_action_instants = [] %}
{% for details, instant in instants.items() %}
    {% do next_action.update({details: {instant: 'bigint'}}) %}
    {% do next_action_instants.append('doc.next_action.' ~ details ~ '.' ~ instant) %}
{% endfor %}
{% set shape = {
    'customer': 'varchar', 'customer_account': 'varchar', 'invoice': 'varchar', 'latest_charge': 'varchar', 'payment_method': 'varchar',
    'currency': 'varchar', 'status': 'varchar', 'capture_method': 'varchar', 'cancellation_reason': 'varchar',
    'amount': 'bigint', 'amount_capturable': 'bigint', 'amount_received': 'bigint', 'canceled_at': 'bigint',
    'payment_details': {'order_reference': 'varchar'}, 'metadata': metadata_shape(),
    'payment_method_types': ['varchar'], 'next_action': next_action,
    'payment_method_options': payment_method_options_shape()
} %}

with source as (

    select * from {{ source('stripe', 'payment_intents') }}
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
        id as payment_intent_id,
        coalesce({{ expandable_id('doc.customer') }}, {{ expandable_id('doc.customer_account') }}) as customer_id,
        {{ expandable_id('doc.invoice') }} as invoice_id,
        {{ expandable_id('doc.latest_charge') }} as latest_charge_id,
        {{ expandable_id('doc.payment_method') }} as payment_method_id,

        -- strings
        {{ stripe_currency('doc.currency') }} as currency,
        doc.status,
        doc.capture_method,
        {{ types_captured_by_hand('doc.payment_method_options') }} as types_captured_by_hand,
        doc.cancellation_reason,
        array_to_string(doc.payment_method_types, ' ') as payment_method_types,
        doc.next_action.type as next_action_type,
        {{ metadata_order_columns('doc.metadata') }}
        nullif(trim(doc.payment_details.order_reference), '') as order_reference,
        {{ published_metadata('doc.metadata') }} as metadata,
        {{ experiment_arm('doc.metadata') }} as experiment_arm,

        -- numerics
        {{ stripe_amount('doc.amount') }} as amount,
        coalesce({{ stripe_amount('doc.amount_capturable') }}, 0) as capturable_amount,
        coalesce({{ stripe_amount('doc.amount_received') }}, 0) as received_amount,

        -- booleans
        {{ is_tagged_as_retry('doc.metadata') }} as is_tagged_as_retry,

        -- timestamps
        created as created_at,
        {{ from_unix_seconds('doc.canceled_at') }} as canceled_at,
        {{ from_unix_seconds('coalesce(' ~ next_action_instants | join(', ') ~ ')') }} as next_action_at,

        -- the load
        _load_id
    from parsed

)

select * from final
