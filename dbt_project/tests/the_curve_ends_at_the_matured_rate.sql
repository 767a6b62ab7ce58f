-- The curve never falls, and lies between 0 and 1 and within its interval. In months whose windows have all ended, it
-- reaches the recovered share at the end of the window, by count and by amount.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_curve'}}}) }}

with matured as (

    select
        account_id,
        livemode,
        currency,
        first_failure_class,
        cast(date_trunc('month', first_failed_date) as date) as cohort_month,
        count(*) as episode_count,
        count(*) filter (where recovery_status = 'recovered') / cast(count(*) as double) as recovery_rate,
        sum(case when coalesce(first_succeeded_at, first_paid_at) <= window_ends_at then recovered_amount else 0 end)
        / cast(greatest(sum(at_risk_amount), 1) as double) as amount_recovery_rate
    from {{ ref('recovery_episodes') }}
    where is_in_scope
    group by account_id, livemode, currency, first_failure_class, date_trunc('month', first_failed_date)
    having bool_and(is_matured)

),

curve as (

    select
        *,
        lag(cumulative_incidence, 1, 0.0) over (
            partition by account_id, livemode, cohort_month, currency, first_failure_class order by day_number
        ) as incidence_before
    from {{ ref('recovery_curve') }}

)

select
    matured.*,
    curve.episode_count as episode_count_of_curve,
    curve.day_number,
    curve.cumulative_incidence,
    curve.incidence_before
from curve
full outer join matured
    on
        curve.account_id = matured.account_id
        and curve.livemode = matured.livemode
        and curve.cohort_month = matured.cohort_month
        and curve.currency is not distinct from matured.currency
        and curve.first_failure_class = matured.first_failure_class
        and curve.day_number = {{ checked_var('recovery_window_days') }}
where
    curve.cumulative_incidence not between -1e-12 and 1 + 1e-12
    or curve.cumulative_incidence < curve.incidence_before - 1e-12
    or curve.cumulative_incidence not between
    curve.cumulative_incidence_lower - 1e-12 and curve.cumulative_incidence_upper + 1e-12
    or (
        matured.account_id is not null
        and not coalesce(
            curve.episode_count = matured.episode_count
            and abs(curve.cumulative_incidence - matured.recovery_rate) < 1e-9
            and abs(curve.amount_cumulative_incidence - matured.amount_recovery_rate) < 1e-9,
            false
        )
    )
