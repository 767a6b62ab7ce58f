with forecasts as (

    select * from {{ ref('int_recovery_forecasts') }}
    where as_of_date is not null

),

-- All failure classes together.
pooled as (

    select
        account_id,
        livemode,
        currency,
        as_of_date,
        days_ahead as horizon_days,
        cast(sum(stock_count) as bigint) as count_stock,
        cast(sum(stock_amount) as bigint) as amount_stock,
        {{ exact_sum('expected_count') }} as count_expected,
        {{ exact_sum('expected_amount') }} as amount_expected,
        {{ exact_sum('expected_count_variance') }} as count_variance,
        {{ exact_sum('expected_amount_variance') }} as amount_variance,
        {{ exact_sum('log_none') }} as log_none,
        {{ exact_sum('log_all') }} as log_all,
        cast(sum(recovered_count) as bigint) as recovered_count,
        cast(sum(recovered_amount) as bigint) as recovered_amount
    from forecasts
    group by all

),

banded as (

    select
        *,
        {{ forecast_bands('expected_count', 'count') }},
        {{ forecast_bands('expected_amount', 'amount') }}
    from pooled

),

final as (

    select
        -- ids
        account_id,
        livemode,
        currency,
        as_of_date,
        horizon_days,

        -- numerics
        count_stock as stock_count,
        round(count_expected, 6) as expected_count,
        round(count_variance, 6) as expected_count_variance,
        expected_count_lower_50,
        expected_count_upper_50,
        expected_count_lower_90,
        expected_count_upper_90,
        recovered_count,
        amount_stock as stock_amount,
        cast(round(amount_expected) as bigint) as expected_amount,
        round(amount_variance, 6) as expected_amount_variance,
        expected_amount_lower_50,
        expected_amount_upper_50,
        expected_amount_lower_90,
        expected_amount_upper_90,
        recovered_amount,

        -- booleans
        recovered_count between expected_count_lower_50 and expected_count_upper_50 as is_count_within_50,
        recovered_count between expected_count_lower_90 and expected_count_upper_90 as is_count_within_90,
        recovered_amount between expected_amount_lower_50 and expected_amount_upper_50 as is_amount_within_50,
        recovered_amount between expected_amount_lower_90 and expected_amount_upper_90 as is_amount_within_90
    from banded

)

select * from final
