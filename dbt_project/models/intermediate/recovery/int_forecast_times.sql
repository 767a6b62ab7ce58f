with accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

-- The forecast of today, and those of 26 past Mondays. A week that has just begun may be today as well.
final as (

    select
        account_id,
        livemode,
        data_through_at,
        cast(null as date) as as_of_date,
        data_through_at as as_of_at
    from accounts
    where data_through_at is not null
    union all by name
    select
        account_id,
        livemode,
        data_through_at,
        as_of_date,
        {{ start_of_reporting_date('as_of_date') }} as as_of_at
    from (
        select
            *,
            cast(
                date_trunc('week', {{ reporting_date('data_through_at') }})
                - to_days(cast(7 * unnest(range(26)) as integer)) as date
            ) as as_of_date
        from accounts
        where data_through_at is not null
    )

)

select * from final
