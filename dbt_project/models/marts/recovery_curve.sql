{# More than 150 lines: one estimate (Kaplan-Meier) in steps that only make sense together. #}
{% set last_day = 2 * checked_var('recovery_window_days') %}
{% set cohort = 'account_id, livemode, cohort_month, currency, first_failure_class' %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where is_in_scope

),

accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

-- A day is 24 hours, counted from the first failure. An episode counts for its completed days only, whether it was paid
-- or not: an episode paid on its third day counts for that day after three full days.
timed as (

    select
        episodes.account_id,
        episodes.livemode,
        episodes.currency,
        episodes.first_failure_class,
        episodes.at_risk_amount,
        episodes.recovered_amount,
        date_trunc('month', episodes.first_failed_date) as cohort_month,
        date_diff('second', episodes.first_failed_at, accounts.data_through_at) // 86400 as observed_days,
        ceil(date_diff('second', episodes.first_failed_at, episodes.first_succeeded_at) / 86400.0)
            as recovered_on_day,
        ceil(
            date_diff('second', episodes.first_failed_at, coalesce(episodes.first_succeeded_at, episodes.first_paid_at))
            / 86400.0
        ) as paid_on_day
    from episodes
    inner join accounts
        on episodes.account_id = accounts.account_id and episodes.livemode = accounts.livemode
    where accounts.data_through_at >= episodes.first_failed_at

),

-- The last day on which an episode is at risk: the day of its recovery, or the last day that the tables cover. Amounts
-- count as recovered when they are received; the rest of the amount at risk stays at risk.
ended as (

    select
        {{ cohort }},
        cast(
            case when recovered_on_day <= observed_days then recovered_on_day else observed_days end as bigint
        ) as last_day,
        1 as ended_count,
        case when recovered_on_day <= observed_days then 1 else 0 end as recovered_count,
        0 as ended_amount,
        0 as recovered_amount,
        observed_days
    from timed
    union all
    select
        {{ cohort }},
        cast(paid_on_day as bigint) as last_day,
        0 as ended_count,
        0 as recovered_count,
        recovered_amount as ended_amount,
        recovered_amount,
        observed_days
    from timed
    where paid_on_day <= observed_days
    union all
    select
        {{ cohort }},
        observed_days as last_day,
        0 as ended_count,
        0 as recovered_count,
        at_risk_amount - case when paid_on_day <= observed_days then recovered_amount else 0 end as ended_amount,
        0 as recovered_amount,
        observed_days
    from timed

),

summed as (

    select
        {{ cohort }},
        least(last_day, {{ last_day + 1 }}) as day_number,
        sum(ended_count) as ended_count,
        sum(ended_amount) as ended_amount,
        min(observed_days) as least_observed_days,
        max(observed_days) as most_observed_days,
        cast(sum(recovered_count) as bigint) as recovered_count,
        sum(recovered_amount) as recovered_amount
    from ended
    group by {{ cohort }}, least(last_day, {{ last_day + 1 }})

),

cohorts as (

    select
        {{ cohort }},
        cast(sum(ended_count) as bigint) as episode_count,
        min(least_observed_days) as least_observed_days,
        max(most_observed_days) as most_observed_days
    from summed
    group by {{ cohort }}

),

days as (

    select
        *,
        unnest(range(0, {{ last_day + 2 }})) as day_number
    from cohorts

),

counted as (

    select
        days.*,
        coalesce(summed.recovered_count, 0) as recovered_count,
        coalesce(summed.recovered_amount, 0) as recovered_amount,
        coalesce(sum(summed.ended_count) over still_there, 0) as at_risk_count,
        coalesce(sum(summed.ended_amount) over still_there, 0) as at_risk_amount
    from days
    left join summed
        on
            days.account_id = summed.account_id
            and days.livemode = summed.livemode
            and days.cohort_month = summed.cohort_month
            and days.currency is not distinct from summed.currency
            and days.first_failure_class = summed.first_failure_class
            and days.day_number = summed.day_number
    window still_there as (
        partition by
            days.account_id, days.livemode, days.cohort_month, days.currency, days.first_failure_class
        order by days.day_number
        rows between current row and unbounded following
    )

),

-- One minus the product of each day's share that was not recovered. Canceled episodes stay in the denominator: it is
-- known for the whole time that they will never be recovered.
multiplied as (

    select
        *,
        1 - product(1 - recovered_count / greatest(cast(at_risk_count as double), 1)) over so_far
            as cumulative_incidence,
        1 - product(1 - recovered_amount / greatest(cast(at_risk_amount as double), 1)) over so_far
            as amount_cumulative_incidence,
        sum(
            case
                when at_risk_count > recovered_count
                    then cast(recovered_count as double) / (at_risk_count * (at_risk_count - recovered_count))
            end
        ) over so_far as greenwood_sum
    from counted
    where day_number <= least(most_observed_days, {{ last_day }})
    window so_far as (
        partition by {{ cohort }} order by day_number rows between unbounded preceding and current row
    )

),

-- Convert Greenwood's variance into the number of episodes that would have the same variance. Use Wilson's interval for
-- it.
sized as (

    select
        *,
        case
            when cumulative_incidence > 0 and cumulative_incidence < 1 and greenwood_sum > 0
                then cumulative_incidence / ((1 - cumulative_incidence) * greenwood_sum)
            else cast(episode_count as double)
        end as effective_count
    from multiplied

),

final as (

    select
        -- ids
        account_id,
        livemode,
        cast(cohort_month as date) as cohort_month,
        currency,
        first_failure_class,
        day_number,

        -- numerics
        episode_count,
        cast(at_risk_count as bigint) as at_risk_count,
        recovered_count,
        cumulative_incidence,
        {{ wilson_lower('cumulative_incidence', 'effective_count') }} as cumulative_incidence_lower,
        {{ wilson_upper('cumulative_incidence', 'effective_count') }} as cumulative_incidence_upper,
        amount_cumulative_incidence,

        -- booleans
        day_number <= least_observed_days as is_fully_observed
    from sized

)

select * from final
