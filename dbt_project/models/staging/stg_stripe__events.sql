{#
    Incremental: the raw table is append-only, so a build replaces the rows of all loads that no complete build has
    taken yet. A full build writes all rows.
#}
{{ config(materialized='incremental', incremental_strategy='replace_loads') }}

{#
    Fields that only the event has (the failure of a payment_failed event), and fields from which a charge is inferred
    until the charge itself is read.
#}
{% set shape = {
    'data': {
        'object': {
            'amount': 'bigint', 'amount_received': 'bigint', 'currency': 'varchar', 'customer': 'varchar',
            'customer_account': 'varchar',
            'latest_charge': 'varchar', 'payment_method': 'varchar', 'capture_method': 'varchar', 'status': 'varchar',
            'payment_method_options': payment_method_options_shape(),
            'last_payment_error': last_payment_error_shape()
        }
    }
} %}

with source as (

    select * from {{ source('stripe', 'events') }}
    where {{ is_new_since_last_build() if is_incremental() else 'true' }}

),

parsed as (

    select
        *,
        case
            when starts_with(type, 'payment_intent.')
                then {{ json_read('payload', shape) }}.data.object
        end as doc,
        {{ json_read('payload', {'data': {'object': {'payment_intent': 'varchar'}}}) }}.data.object.payment_intent
            as payment_intent
    from source

),

final as (

    select
        -- ids
        account_id,
        livemode,
        id as event_id,
        object_id,
        case
            when starts_with(type, 'payment_intent.') then object_id
            else {{ expandable_id('payment_intent') }}
        end as payment_intent_id,
        coalesce({{ expandable_id('doc.customer') }}, {{ expandable_id('doc.customer_account') }}) as customer_id,
        {{ expandable_id('doc.latest_charge') }} as latest_charge_id,
        {{ expandable_id('doc.payment_method') }} as payment_method_id,

        -- strings
        type as event_type,
        _api_version as api_version,
        {{ stripe_currency('doc.currency') }} as currency,
        doc.capture_method,
        {{ types_captured_by_hand('doc.payment_method_options') }} as types_captured_by_hand,
        doc.status,

        -- the failure
        {{ last_payment_error_columns('doc.last_payment_error') }},

        -- numerics
        {{ stripe_amount('doc.amount') }} as amount,
        {{ stripe_amount('doc.amount_received') }} as received_amount,

        -- timestamps
        created as created_at,

        -- the load
        _load_id
    from parsed

)

select * from final
