with source as (

    select * from {{ source('sync', 'streams') }}

),

final as (

    select
        -- ids
        account_id,
        livemode,

        -- strings
        stream,
        missing_permission,

        -- timestamps
        complete_through as complete_through_at,
        known_since as known_since_at
    from source

)

select * from final
