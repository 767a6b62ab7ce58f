{# Of an event's object only what no object tells later: the failure that a payment_failed event is about. #}
{% set shape = {
    'data': {
        'object': {
            'amount': 'bigint', 'currency': 'varchar', 'customer': 'varchar',
            'last_payment_error': last_payment_error_shape()
        }
    }
} %}

with source as (

    select * from {{ source('stripe', 'events') }}

),

parsed as (

    select
        *,
        case
            when type = 'payment_intent.payment_failed' then {{ json_read('payload', shape) }}.data.object
        end as doc
    from source

),

final as (

    select
        -- ids
        account_id,
        livemode,
        id as event_id,
        object_id,
        {{ expandable_id('doc.customer') }} as customer_id,

        -- strings
        type as event_type,
        doc.currency,

        -- the failure
        {{ last_payment_error_columns('doc.last_payment_error') }},

        -- numerics
        doc.amount,

        -- timestamps
        created as created_at
    from parsed

)

select * from final
