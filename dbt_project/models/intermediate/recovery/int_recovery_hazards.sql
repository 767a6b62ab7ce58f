{# More than 150 lines: one estimate in steps that only make sense together. #}
{{ config(materialized='table') }}
{% set step_seconds = forecast_step_seconds() %}
{% set step_count = forecast_step_count() %}
{% set class_weight, account_weight = 30, 10 %}

with exits as (

    select
        *,
        first_failed_at + to_seconds(last_step * {{ step_seconds }}) as observed_at
    from {{ ref('int_recovery_exits') }}

),

forecast_times as (

    select distinct
        account_id,
        livemode,
        as_of_at
    from {{ ref('int_forecast_times') }}

),

-- A payment counts for its completed steps only, whether it was recovered or not. Once its last step is over, all later
-- forecasts count it in the same way.
observed as (

    select
        account_id,
        livemode,
        first_failure_class,
        last_step,
        observed_at,
        count(*) as ended_count,
        count(*) filter (where is_recovered) as recovered_count,
        count(*) filter (where is_canceled) as canceled_count
    from exits
    where last_step > 0
    group by all

),

ended as (

    select
        forecast_times.account_id,
        forecast_times.livemode,
        forecast_times.as_of_at,
        observed.first_failure_class,
        observed.last_step,
        true as is_final,
        sum(observed.ended_count) as ended_count,
        sum(observed.recovered_count) as recovered_count,
        sum(observed.canceled_count) as canceled_count
    from observed
    asof inner join forecast_times
        on
            observed.account_id = forecast_times.account_id
            and observed.livemode = forecast_times.livemode
            and observed.observed_at <= forecast_times.as_of_at
    group by all
    union all
    select
        forecast_times.account_id,
        forecast_times.livemode,
        forecast_times.as_of_at,
        exits.first_failure_class,
        date_diff('second', exits.first_failed_at, forecast_times.as_of_at) // {{ step_seconds }} as last_step,
        false as is_final,
        count(*) as ended_count,
        0 as recovered_count,
        0 as canceled_count
    from exits
    inner join forecast_times
        on
            exits.account_id = forecast_times.account_id
            and exits.livemode = forecast_times.livemode
            and exits.first_failed_at <= forecast_times.as_of_at
            and exits.observed_at > forecast_times.as_of_at
    group by all

),

classes as (

    select
        account_id,
        livemode,
        first_failure_class,
        min(first_failed_at) as first_failed_at
    from exits
    group by all

),

steps as (

    select
        classes.account_id,
        classes.livemode,
        classes.first_failure_class,
        forecast_times.as_of_at,
        unnest(range({{ step_count }} + 1)) as step_number
    from classes
    inner join forecast_times
        on
            classes.account_id = forecast_times.account_id
            and classes.livemode = forecast_times.livemode
            and classes.first_failed_at <= forecast_times.as_of_at

),

summed as (

    select
        account_id,
        livemode,
        first_failure_class,
        as_of_at,
        last_step as step_number,
        sum(ended_count) filter (where is_final) as final_count,
        sum(ended_count) filter (where not is_final) as open_count,
        sum(recovered_count) as recovered_count,
        sum(canceled_count) as canceled_count
    from ended
    group by all

),

so_far as (

    select
        steps.*,
        cast(coalesce(sum(summed.final_count) over until_then, 0) + coalesce(summed.open_count, 0) as bigint)
            as ended_count,
        cast(coalesce(sum(summed.recovered_count) over until_then, 0) as bigint) as recovered_count,
        cast(coalesce(sum(summed.canceled_count) over until_then, 0) as bigint) as canceled_count
    from steps
    left join summed
        on
            steps.account_id = summed.account_id
            and steps.livemode = summed.livemode
            and steps.first_failure_class = summed.first_failure_class
            and steps.as_of_at = summed.as_of_at
            and steps.step_number = summed.step_number
    window until_then as (
        partition by steps.account_id, steps.livemode, steps.first_failure_class, steps.step_number
        order by steps.as_of_at
        rows between unbounded preceding and current row
    )

),

counted as (

    select
        *,
        sum(ended_count) over (
            partition by account_id, livemode, first_failure_class, as_of_at
            order by step_number
            rows between current row and unbounded following
        ) as at_risk_count
    from so_far

),

-- A published curve for accounts that know nothing yet: half of all payments are recovered, and nine in ten of those
-- within ten days. 4.343 days is 10 / ln(10).
account_hazards as (

    select
        *,
        (
            sum(recovered_count) over same_step
            + {{ account_weight }} * (
                exp(-(step_number - 1) / {{ 4.343 * forecast_steps_per_day() }})
                - exp(-step_number / {{ 4.343 * forecast_steps_per_day() }})
            ) / (1 + exp(-(step_number - 1) / {{ 4.343 * forecast_steps_per_day() }}))
        ) / (sum(at_risk_count) over same_step + {{ account_weight }}) as account_recovery_hazard,
        sum(canceled_count) over same_step
        / (sum(at_risk_count) over same_step + {{ account_weight }}) as account_cancellation_hazard
    from counted
    where step_number > 0
    window same_step as (partition by account_id, livemode, as_of_at, step_number)

),

class_hazards as (

    select
        *,
        (recovered_count + {{ class_weight }} * account_recovery_hazard)
        / (at_risk_count + {{ class_weight }}) as recovery_hazard,
        (canceled_count + {{ class_weight }} * account_cancellation_hazard)
        / (at_risk_count + {{ class_weight }}) as cancellation_hazard
    from account_hazards

),

open_shares as (

    select
        *,
        exp(sum(ln(1 - recovery_hazard - cancellation_hazard)) over so_far) as open_share,
        sum(
            recovery_hazard / ((1 - recovery_hazard) * (at_risk_count + {{ class_weight + 1 }}))
        ) over so_far as log_variance
    from class_hazards
    window so_far as (
        partition by account_id, livemode, first_failure_class, as_of_at order by step_number
        rows between unbounded preceding and current row
    )

),

final as (

    select
        account_id,
        livemode,
        first_failure_class,
        as_of_at,
        step_number,
        cast(at_risk_count as bigint) as at_risk_count,
        cast(recovered_count as bigint) as recovered_count,
        cast(canceled_count as bigint) as canceled_count,
        recovery_hazard,
        cancellation_hazard,
        open_share,
        sum(
            recovery_hazard * open_share / (1 - recovery_hazard - cancellation_hazard)
        ) over (
            partition by account_id, livemode, first_failure_class, as_of_at order by step_number
            rows between unbounded preceding and current row
        ) as recovered_share,
        log_variance
    from open_shares
    union all by name
    select distinct
        account_id,
        livemode,
        first_failure_class,
        as_of_at,
        0 as step_number,
        1.0 as open_share,
        0.0 as recovered_share,
        0.0 as log_variance
    from steps

)

select * from final
