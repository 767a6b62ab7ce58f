{% set kinds = ['new', 'recovered', 'expired', 'canceled', 'recovered_late', 'reversed'] %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where is_in_scope

),

accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

-- When an episode leaves recovery: when it is paid, when it is canceled, or when its window ends, whichever is first.
-- An episode that is paid later has expired before. One that is canceled later counts as canceled on the day its window
-- ended.
happened as (

    select
        account_id,
        livemode,
        currency,
        first_failed_date,
        'new' as kind,
        first_failed_at as happened_at,
        at_risk_amount as amount
    from episodes
    union all
    select
        account_id,
        livemode,
        currency,
        first_failed_date,
        case recovery_status
            when 'recovered' then 'recovered'
            when 'lost_canceled' then 'canceled'
            else 'expired'
        end as kind,
        case recovery_status
            when 'recovered' then first_succeeded_at
            when 'lost_canceled' then case when canceled_at < window_ends_at then canceled_at else window_ends_at end
            else window_ends_at
        end as happened_at,
        at_risk_amount as amount
    from episodes
    where recovery_status <> 'in_recovery'
    union all
    select
        account_id,
        livemode,
        currency,
        first_failed_date,
        'recovered_late' as kind,
        first_succeeded_at as happened_at,
        at_risk_amount as amount
    from episodes
    where recovery_status = 'recovered_late'
    union all
    select
        account_id,
        livemode,
        currency,
        first_failed_date,
        'reversed' as kind,
        last_reversed_at as happened_at,
        recovered_amount - recovered_amount_net as amount
    from episodes
    where recovered_amount_net < recovered_amount

),

-- No episode leaves recovery before the day on which it entered, even if Stripe canceled it a moment before the
-- failure.
dated as (

    select
        *,
        greatest({{ reporting_date('happened_at') }}, first_failed_date) as activity_date
    from happened

),

summed as (

    select
        {% for kind in kinds %}
            count(*) filter (where kind = '{{ kind }}') as {{ kind }}_count,
            coalesce(sum(amount) filter (where kind = '{{ kind }}'), 0) as {{ kind }}_amount,
        {% endfor %}
        account_id,
        livemode,
        currency,
        activity_date
    from dated
    group by account_id, livemode, currency, activity_date

),

spans as (

    select
        summed.account_id,
        summed.livemode,
        summed.currency,
        min(summed.activity_date) as first_date,
        greatest(max(summed.activity_date), max({{ reporting_date('accounts.data_through_at') }})) as last_date
    from summed
    left join accounts
        on summed.account_id = accounts.account_id and summed.livemode = accounts.livemode
    group by summed.account_id, summed.livemode, summed.currency

),

days as (

    select
        account_id,
        livemode,
        currency,
        unnest(generate_series(first_date, last_date, interval '1 day')) as activity_date
    from spans

),

-- Every day has a row, even if nothing happened.
filled as (

    select
        {% for kind in kinds %}
            cast(coalesce(summed.{{ kind }}_count, 0) as bigint) as {{ kind }}_count,
            cast(coalesce(summed.{{ kind }}_amount, 0) as bigint) as {{ kind }}_amount,
        {% endfor %}
        days.account_id,
        days.livemode,
        days.currency,
        cast(days.activity_date as date) as activity_date
    from days
    left join summed
        on
            days.account_id = summed.account_id
            and days.livemode = summed.livemode
            and days.currency is not distinct from summed.currency
            and days.activity_date = summed.activity_date

),

balanced as (

    select
        *,
        sum(new_count - recovered_count - expired_count - canceled_count) over so_far as closing_count,
        sum(new_amount - recovered_amount - expired_amount - canceled_amount) over so_far as closing_amount
    from filled
    window so_far as (partition by account_id, livemode, currency order by activity_date)

),

final as (

    select
        -- ids
        account_id,
        livemode,
        activity_date,
        currency,

        -- numerics
        cast(closing_count - new_count + recovered_count + expired_count + canceled_count as bigint)
            as opening_in_recovery_count,
        new_count as new_at_risk_count,
        recovered_count,
        expired_count,
        canceled_count,
        cast(closing_count as bigint) as closing_in_recovery_count,
        recovered_late_count,
        reversed_count,
        cast(closing_amount - new_amount + recovered_amount + expired_amount + canceled_amount as bigint)
            as opening_in_recovery_amount,
        new_amount as new_at_risk_amount,
        recovered_amount as recovered_at_risk_amount,
        expired_amount as expired_at_risk_amount,
        canceled_amount as canceled_at_risk_amount,
        cast(closing_amount as bigint) as closing_in_recovery_amount,
        recovered_late_amount as recovered_late_at_risk_amount,
        reversed_amount
    from balanced

)

select * from final
