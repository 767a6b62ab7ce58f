{% set periods = {'all_time': none, 'last_365_days': 365, 'last_90_days': 90, 'last_30_days': 30} %}
{% set counts = [
    'failed_count', 'recovered_count', 'recovered_strict_count', 'failed_count_to_date', 'recovered_count_to_date',
    'recovered_late_count_to_date', 'in_recovery_count_to_date', 'lost_count_to_date'
] %}
{% set amounts = [
    'at_risk_amount', 'recovered_amount', 'at_risk_amount_to_date', 'recovered_amount_to_date',
    'recovered_late_amount_to_date'
] %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where is_in_scope

),

accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

dated as (

    select
        episodes.*,
        accounts.data_through_at
    from episodes
    left join accounts
        on episodes.account_id = accounts.account_id and episodes.livemode = accounts.livemode

),

-- A period contains the matured payments whose window ended in it and, for `_to_date`, the payments that first failed
-- in it.
in_periods as (

    {% for period, days in periods.items() %}
        select
            *,
            '{{ period }}' as period,
            {% if days is none %}
                is_matured as is_counted,
                true as is_counted_to_date
            {% else %}
                is_matured and window_ends_at > data_through_at - interval '{{ days }} days' as is_counted,
                first_failed_at > data_through_at - interval '{{ days }} days' as is_counted_to_date
            {% endif %}
        from dated
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

of_currencies as (

    select
        count(*) filter (where is_counted) as failed_count,
        count(*) filter (where is_counted and recovery_status = 'recovered') as recovered_count,
        count(*) filter (where is_counted and recovery_status_strict = 'recovered') as recovered_strict_count,
        count(*) filter (where is_counted_to_date) as failed_count_to_date,
        count(*) filter (where is_counted_to_date and recovery_status = 'recovered') as recovered_count_to_date,
        count(*) filter (where is_counted_to_date and recovery_status = 'recovered_late')
            as recovered_late_count_to_date,
        count(*) filter (where is_counted_to_date and recovery_status = 'in_recovery') as in_recovery_count_to_date,
        count(*) filter (where is_counted_to_date and recovery_status in ('lost_canceled', 'lost_expired'))
            as lost_count_to_date,
        coalesce(sum(at_risk_amount) filter (where is_counted), 0) as at_risk_amount,
        coalesce(sum(recovered_in_window_amount) filter (where is_counted), 0)
            as recovered_amount,
        coalesce(sum(at_risk_amount) filter (where is_counted_to_date), 0) as at_risk_amount_to_date,
        coalesce(sum(recovered_in_window_amount) filter (where is_counted_to_date), 0)
            as recovered_amount_to_date,
        coalesce(sum(recovered_amount - recovered_in_window_amount) filter (where is_counted_to_date), 0)
            as recovered_late_amount_to_date,
        account_id,
        livemode,
        currency,
        period,
        false as is_all_currencies
    from in_periods
    group by account_id, livemode, currency, period

),

-- Counts of different currencies can be added; amounts cannot.
account_totals as (

    select
        {% for count in counts %}
            sum({{ count }}) as {{ count }},
        {% endfor %}
        {% for amount in amounts %}
            cast(null as bigint) as {{ amount }},
        {% endfor %}
        account_id,
        livemode,
        cast(null as varchar) as currency,
        period,
        true as is_all_currencies
    from of_currencies
    group by account_id, livemode, period

),

unioned as (

    select * from account_totals
    union all
    select * from of_currencies

),

rated as (

    select
        *,
        recovered_count / nullif(cast(failed_count as double), 0) as recovery_rate,
        recovered_strict_count / nullif(cast(failed_count as double), 0) as recovery_rate_strict,
        recovered_amount / nullif(cast(at_risk_amount as double), 0) as amount_recovery_rate,
        recovered_count_to_date / nullif(cast(failed_count_to_date as double), 0) as recovery_rate_to_date
    from unioned

),

final as (

    select
        -- ids
        account_id,
        livemode,
        currency,
        period,

        -- numerics
        cast({{ checked_var('recovery_window_days') }} as bigint) as recovery_window_days,
        cast(failed_count as bigint) as failed_count,
        cast(recovered_count as bigint) as recovered_count,
        recovery_rate,
        {{ wilson_lower('recovery_rate', 'failed_count') }} as recovery_rate_lower,
        {{ wilson_upper('recovery_rate', 'failed_count') }} as recovery_rate_upper,
        cast(recovered_strict_count as bigint) as recovered_strict_count,
        recovery_rate_strict,
        {{ wilson_lower('recovery_rate_strict', 'failed_count') }} as recovery_rate_strict_lower,
        {{ wilson_upper('recovery_rate_strict', 'failed_count') }} as recovery_rate_strict_upper,
        cast(at_risk_amount as bigint) as at_risk_amount,
        cast(recovered_amount as bigint) as recovered_amount,
        amount_recovery_rate,
        {% for count in counts if count.endswith('_to_date') %}
            cast({{ count }} as bigint) as {{ count }},
        {% endfor %}
        recovery_rate_to_date,
        {% for amount in amounts if amount.endswith('_to_date') %}
            cast({{ amount }} as bigint) as {{ amount }},
        {% endfor %}

        -- booleans
        is_all_currencies
    from rated

)

select * from final
