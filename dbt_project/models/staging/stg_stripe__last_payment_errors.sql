{#
    Incremental: the raw table is append-only, so a build replaces the rows of all loads that no complete build has
    taken yet. A full build writes all rows.
#}
{{ config(materialized='incremental', incremental_strategy='replace_loads') }}

with source as (

    select * from {{ source('stripe', 'last_payment_errors') }}
    where {{ is_new_since_last_build() if is_incremental() else 'true' }}

),

parsed as (

    select
        *,
        {{ json_read('payload', last_payment_error_shape()) }} as doc
    from source

),

final as (

    select
        -- ids
        account_id,
        livemode,
        id as last_payment_error_id,
        payment_intent_id,

        -- the failure
        {{ last_payment_error_columns('doc') }},

        -- timestamps
        first_seen_at,

        -- the load
        _load_id
    from parsed

)

select * from final
