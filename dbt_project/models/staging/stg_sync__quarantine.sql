with source as (

    select * from {{ source('sync', 'quarantine') }}

),

final as (

    select
        -- ids
        account_id,
        livemode,
        key as quarantine_key,
        object_id,

        -- strings
        stream,
        reason,

        -- timestamps
        first_seen_at,
        last_seen_at
    from source

)

select * from final
