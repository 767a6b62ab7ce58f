-- Sums of the last 30 days (days_back = 0) and of the 30 days before them (30), counted back from data_through_at.
with periods as (

    select
        account_id,
        unnest([0, 30]) as days_back,
        data_through_at - to_days(days_back) as ends_at,
        ends_at - to_days(30) as starts_at
    from marts.data_coverage

),

-- When a payment left recovery: it was paid, canceled, or its window ended.
episodes as (

    select
        *,
        coalesce(first_succeeded_at, first_paid_at) as paid_at,
        case
            when recovery_status = 'recovered' then first_succeeded_at
            when recovery_status = 'lost_canceled' then least(canceled_at, window_ends_at)
            when recovery_status <> 'in_recovery' then window_ends_at
        end as left_at,
        recovery_status in ('lost_canceled', 'lost_expired') as is_lost
    from marts.recovery_episodes
    where is_in_scope

)

select
    episodes.currency,
    episodes.account_id,
    episodes.first_failure_class as failure_class,
    periods.days_back,
    count(*) filter (where first_failed_at > starts_at and first_failed_at <= ends_at) as failed_count,
    sum(at_risk_amount) filter (where first_failed_at > starts_at and first_failed_at <= ends_at) as failed_amount,
    count(*) filter (where paid_at > starts_at and paid_at <= ends_at) as recovered_count,
    sum(recovered_amount_net) filter (where paid_at > starts_at and paid_at <= ends_at) as recovered_amount,
    count(*) filter (where window_ends_at > starts_at and window_ends_at <= ends_at) as matured_count,
    count(*) filter (
        where window_ends_at > starts_at and window_ends_at <= ends_at and recovery_status = 'recovered'
    ) as matured_recovered_count,
    count(*) filter (
        where window_ends_at > starts_at and window_ends_at <= ends_at and recovery_status_strict = 'recovered'
    ) as matured_recovered_strict_count,
    count(*) filter (where first_failed_at <= ends_at and coalesce(left_at > ends_at, true)) as in_recovery_count,
    sum(at_risk_amount) filter (
        where first_failed_at <= ends_at and coalesce(left_at > ends_at, true)
    ) as in_recovery_amount,
    count(*) filter (where is_lost and left_at > starts_at and left_at <= ends_at) as lost_count,
    sum(at_risk_amount - recovered_amount) filter (
        where is_lost and left_at > starts_at and left_at <= ends_at
    ) as lost_amount
from episodes
inner join periods on episodes.account_id = periods.account_id
group by all
order by all
