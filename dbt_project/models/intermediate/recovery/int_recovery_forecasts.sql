{{ config(materialized='table') }}
{% set step_seconds = forecast_step_seconds() %}
{% set window_days = checked_var('recovery_window_days') %}

with exits as (

    select * from {{ ref('int_recovery_exits') }}

),

forecast_times as (

    select * from {{ ref('int_forecast_times') }}

),

hazards as (

    select * from {{ ref('int_recovery_hazards') }}

),

-- Ages are rounded to a step. An amount is squared as an integer, so that its sum is the same in every build.
stock as (

    select
        forecast_times.account_id,
        forecast_times.livemode,
        forecast_times.as_of_date,
        forecast_times.as_of_at,
        forecast_times.data_through_at,
        exits.currency,
        exits.first_failure_class,
        cast(
            round(date_diff('second', exits.first_failed_at, forecast_times.as_of_at) / {{ step_seconds }}.0) as bigint
        ) as age_step,
        case
            when exits.is_recovered
                then cast(ceil(date_diff('second', forecast_times.as_of_at, exits.left_at) / 86400.0) as bigint)
        end as recovered_after_days,
        count(*) as stock_count,
        sum(exits.at_risk_amount) as stock_amount,
        sum(cast(exits.at_risk_amount as hugeint) * exits.at_risk_amount) as squared_amount
    from forecast_times
    inner join exits
        on
            forecast_times.account_id = exits.account_id
            and forecast_times.livemode = exits.livemode
            and forecast_times.as_of_at >= exits.first_failed_at
            and forecast_times.as_of_at < exits.window_ends_at
            and forecast_times.as_of_at < coalesce(exits.left_at, exits.window_ends_at)
    group by all

),

ahead as (

    select
        *,
        unnest(
            case
                when as_of_date is null then range(1, {{ window_days + 1 }})
                else list_filter({{ forecast_horizons() }}, lambda days: as_of_at + to_days(days) <= data_through_at)
            end
        ) as days_ahead
    from stock

),

-- The probability that an open payment is recovered in the next days: of the payments that were still open at this age,
-- the share that was recovered in as many days. Its standard error is that of the sum of their hazards (Greenwood).
expected as (

    select
        ahead.*,
        least((later.recovered_share - reached.recovered_share) / reached.open_share, 1) as probability,
        sqrt(greatest(later.log_variance - reached.log_variance, 0)) as log_error
    from ahead
    inner join hazards as reached
        on
            ahead.account_id = reached.account_id
            and ahead.livemode = reached.livemode
            and ahead.first_failure_class = reached.first_failure_class
            and ahead.as_of_at = reached.as_of_at
            and ahead.age_step = reached.step_number
    inner join hazards as later
        on
            ahead.account_id = later.account_id
            and ahead.livemode = later.livemode
            and ahead.first_failure_class = later.first_failure_class
            and ahead.as_of_at = later.as_of_at
            and later.step_number = least(
                ahead.age_step + ahead.days_ahead * {{ forecast_steps_per_day() }}, {{ forecast_step_count() }}
            )

),

final as (

    select
        account_id,
        livemode,
        currency,
        first_failure_class,
        as_of_date,
        as_of_at,
        cast(days_ahead as bigint) as days_ahead,
        cast(sum(stock_count) as bigint) as stock_count,
        cast(sum(stock_amount) as bigint) as stock_amount,
        {{ exact_sum('stock_count * probability') }} as expected_count,
        {{ exact_sum('stock_amount * probability') }} as expected_amount,
        {{ exact_sum('stock_count * probability * (1 - probability)') }}
        + pow({{ exact_sum('stock_count * (1 - probability) * log_error') }}, 2)
            as expected_count_variance,
        {{ exact_sum('squared_amount * probability * (1 - probability)') }}
        + pow({{ exact_sum('stock_amount * (1 - probability) * log_error') }}, 2)
            as expected_amount_variance,
        {{ exact_sum('stock_count * ln(greatest(1 - probability, 1e-300))') }} as log_none,
        {{ exact_sum('stock_count * ln(greatest(probability, 1e-300))') }} as log_all,
        cast(coalesce(sum(stock_count) filter (where recovered_after_days <= days_ahead), 0) as bigint)
            as recovered_count,
        cast(coalesce(sum(stock_amount) filter (where recovered_after_days <= days_ahead), 0) as bigint)
            as recovered_amount
    from expected
    group by all

)

select * from final
