-- Each count and each amount of a cohort is the sum over its episodes.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_cohorts'}}}) }}

{% set statuses = ['recovered', 'recovered_late', 'in_recovery', 'lost_canceled', 'lost_expired'] %}
{% set measures = [
    'failed_count', 'out_of_scope_count', 'at_risk_amount', 'out_of_scope_at_risk_amount', 'recovered_amount',
    'recovered_late_amount', 'recovered_amount_net', 'recovered_strict_count', 'recovered_amount_strict'
] %}
{% for status in statuses %}
    {% do measures.extend([status ~ '_count', status ~ '_at_risk_amount']) %}
{% endfor %}

with cohorts as (

    select
        {% for measure in measures %}
            sum({{ measure }}) as {{ measure }},
        {% endfor %}
        account_id,
        livemode,
        currency
    from {{ ref('recovery_cohorts') }}
    group by account_id, livemode, currency

),

episodes as (

    select
        {% for status in statuses %}
            sum(case when is_in_scope and recovery_status = '{{ status }}' then 1 else 0 end)
                as {{ status }}_count,
            sum(case when is_in_scope and recovery_status = '{{ status }}' then at_risk_amount else 0 end)
                as {{ status }}_at_risk_amount,
        {% endfor %}
        account_id,
        livemode,
        currency,
        sum(case when is_in_scope then 1 else 0 end) as failed_count,
        sum(case when is_in_scope then 0 else 1 end) as out_of_scope_count,
        sum(case when is_in_scope then at_risk_amount else 0 end) as at_risk_amount,
        sum(case when is_in_scope then 0 else at_risk_amount end) as out_of_scope_at_risk_amount,
        sum(case when is_in_scope then recovered_in_window_amount else 0 end) as recovered_amount,
        sum(case when is_in_scope then recovered_amount - recovered_in_window_amount else 0 end)
            as recovered_late_amount,
        sum(case when is_in_scope then recovered_amount_net else 0 end) as recovered_amount_net,
        sum(case when is_in_scope and recovery_status_strict = 'recovered' then 1 else 0 end)
            as recovered_strict_count,
        sum(case when is_in_scope and recovery_status_strict = 'recovered' then recovered_amount_strict else 0 end)
            as recovered_amount_strict
    from {{ ref('recovery_episodes') }}
    group by account_id, livemode, currency

)

select
    {% for measure in measures %}
        cohorts.{{ measure }} as {{ measure }}_of_cohorts,
        episodes.{{ measure }} as {{ measure }}_of_episodes,
    {% endfor %}
    coalesce(cohorts.account_id, episodes.account_id) as account_id,
    coalesce(cohorts.livemode, episodes.livemode) as livemode,
    coalesce(cohorts.currency, episodes.currency) as currency
from cohorts
full outer join episodes
    on
        cohorts.account_id = episodes.account_id
        and cohorts.livemode = episodes.livemode
        and cohorts.currency is not distinct from episodes.currency
where
    false
    {% for measure in measures %}
        or cohorts.{{ measure }} is distinct from episodes.{{ measure }}
    {% endfor %}
