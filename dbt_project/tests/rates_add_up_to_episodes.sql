-- The rates cover exactly the episodes in scope: by currency, and in the row of all currencies. Each end of an interval
-- is the value from which the share lies 1.96 standard errors away, which is Wilson's definition.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_rates'}}}) }}

{% set counts = {
    'failed_count': 'is_matured',
    'recovered_count': "is_matured and recovery_status = 'recovered'",
    'recovered_strict_count': "is_matured and recovery_status_strict = 'recovered'",
    'failed_count_to_date': 'true',
    'recovered_count_to_date': "recovery_status = 'recovered'",
    'recovered_late_count_to_date': "recovery_status = 'recovered_late'",
    'in_recovery_count_to_date': "recovery_status = 'in_recovery'",
    'lost_count_to_date': "recovery_status in ('lost_canceled', 'lost_expired')"
} %}
{% set amounts = {
    'at_risk_amount': 'case when is_matured then at_risk_amount else 0 end',
    'recovered_amount': "case when is_matured then recovered_in_window_amount else 0 end",
    'at_risk_amount_to_date': 'at_risk_amount',
    'recovered_amount_to_date': 'recovered_in_window_amount',
    'recovered_late_amount_to_date': 'recovered_amount - recovered_in_window_amount'
} %}
{% set ends = [
    'recovery_rate_lower', 'recovery_rate_upper', 'recovery_rate_strict_lower', 'recovery_rate_strict_upper'
] %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where is_in_scope

),

expected as (

    select
        {% for name, condition in counts.items() %}
            sum(case when {{ condition }} then 1 else 0 end) as {{ name }},
        {% endfor %}
        {% for name, expression in amounts.items() %}
            sum({{ expression }}) as {{ name }},
        {% endfor %}
        account_id,
        livemode,
        currency,
        false as is_all_currencies
    from episodes
    group by account_id, livemode, currency

    union all

    select
        {% for name, condition in counts.items() %}
            sum(case when {{ condition }} then 1 else 0 end) as {{ name }},
        {% endfor %}
        {% for name in amounts %}
            cast(null as bigint) as {{ name }},
        {% endfor %}
        account_id,
        livemode,
        cast(null as varchar) as currency,
        true as is_all_currencies
    from episodes
    group by account_id, livemode

),

rates as (

    select * from {{ ref('recovery_rates') }}

),

all_time as (

    select * from rates
    where period = 'all_time'

)

select
    coalesce(all_time.account_id, expected.account_id) as account_id,
    coalesce(all_time.livemode, expected.livemode) as livemode,
    coalesce(all_time.currency, expected.currency) as currency,
    'differs from the episodes' as fault
from all_time
full outer join expected
    on
        all_time.account_id = expected.account_id
        and all_time.livemode = expected.livemode
        and all_time.currency is not distinct from expected.currency
        and all_time.is_all_currencies = expected.is_all_currencies
where
    false
    {% for measure in counts.keys() | list + amounts.keys() | list %}
        or all_time.{{ measure }} is distinct from expected.{{ measure }}
    {% endfor %}

union all

select
    account_id,
    livemode,
    currency,
    'does not match its counts, or lies outside of its interval' as fault
from rates
where
    (recovery_rate is null) <> (failed_count = 0)
    or (failed_count > 0 and (recovery_rate_lower is null or recovery_rate_upper is null))
    or (failed_count > 0 and (recovery_rate_strict_lower is null or recovery_rate_strict_upper is null))
    or abs(recovery_rate * failed_count - recovered_count) > 1e-6
    or abs(recovery_rate_strict * failed_count - recovered_strict_count) > 1e-6
    or recovery_rate not between recovery_rate_lower and recovery_rate_upper
    or recovery_rate_strict not between recovery_rate_strict_lower and recovery_rate_strict_upper
    {% for end in ends %}
        {% set share = end.removesuffix('_lower').removesuffix('_upper') %}
        or abs(power({{ share }} - {{ end }}, 2) * failed_count - 3.8416 * {{ end }} * (1 - {{ end }})) > 1e-6
    {% endfor %}

union all

-- The last 90 days include the last 30 days, and so on.
select
    narrow.account_id,
    narrow.livemode,
    narrow.currency,
    'has more in a shorter period' as fault
from rates as narrow
inner join rates as wide
    on
        narrow.account_id = wide.account_id
        and narrow.livemode = wide.livemode
        and narrow.currency is not distinct from wide.currency
        and narrow.is_all_currencies = wide.is_all_currencies
where
    (narrow.period, wide.period) in (
        ('last_30_days', 'last_90_days'), ('last_90_days', 'last_365_days'), ('last_365_days', 'all_time')
    )
    and (narrow.failed_count > wide.failed_count or narrow.failed_count_to_date > wide.failed_count_to_date)
