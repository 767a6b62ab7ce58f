with forecasts as (

    select
        *,
        stock_count as count_stock,
        expected_count as count_expected,
        expected_count_variance as count_variance,
        stock_amount as amount_stock,
        expected_amount as amount_expected,
        expected_amount_variance as amount_variance
    from {{ ref('int_recovery_forecasts') }}
    where as_of_date is null

),

final as (

    select
        -- ids
        account_id,
        livemode,
        currency,
        first_failure_class,
        days_ahead,

        -- numerics
        stock_count,
        stock_amount,
        round(expected_count, 6) as expected_count,
        round(expected_count_variance, 6) as expected_count_variance,
        {{ forecast_bands('expected_count', 'count') }},
        cast(round(expected_amount) as bigint) as expected_amount,
        round(expected_amount_variance, 6) as expected_amount_variance,
        {{ forecast_bands('expected_amount', 'amount') }}
    from forecasts

)

select * from final
