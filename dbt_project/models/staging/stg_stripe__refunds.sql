{#
    Incremental: a build writes the rows that were loaded since the last complete build. A full build writes all rows.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'refund_id']) }}

{% set shape = {
    'payment_intent': 'varchar', 'charge': 'varchar', 'currency': 'varchar', 'status': 'varchar', 'reason': 'varchar',
    'balance_transaction': 'varchar', 'amount': 'bigint'
} %}

with source as (

    select * from {{ source('stripe', 'refunds') }}
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
        id as refund_id,
        {{ expandable_id('doc.payment_intent') }} as payment_intent_id,
        {{ expandable_id('doc.charge') }} as charge_id,
        {{ expandable_id('doc.balance_transaction') }} as balance_transaction_id,

        -- strings
        {{ stripe_currency('doc.currency') }} as currency,
        doc.status,
        doc.reason,

        -- numerics
        coalesce({{ stripe_amount('doc.amount') }}, 0) as amount,

        -- timestamps
        created as created_at,

        -- the load
        _load_id
    from parsed

)

select * from final
