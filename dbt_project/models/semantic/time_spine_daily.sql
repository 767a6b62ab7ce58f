with days as (

    select unnest(generate_series(date '2011-01-01', date '2050-12-31', interval '1 day')) as date_day

),

final as (

    select cast(date_day as date) as date_day
    from days

)

select * from final
