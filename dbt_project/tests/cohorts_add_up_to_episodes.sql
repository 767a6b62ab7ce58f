-- Every count and every amount of the cohorts is the sum over the episodes in them.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_cohorts'}}}) }}

{% set statuses = ['recovered', 'recovered_late', 'in_recovery', 'lost_canceled', 'lost_expired'] %}

with cohorts as (

    select
        account_id,
        livemode,
        currency,
        sum(failed_count) as failed_count,
        {% for status in statuses %}
            sum({{ status }}_count) as {{ status }}_count,
            sum({{ status }}_at_risk_amount) as {{ status }}_at_risk_amount,
        {% endfor %}
        sum(at_risk_amount) as at_risk_amount,
        sum(out_of_scope_count) as out_of_scope_count,
        sum(out_of_scope_at_risk_amount) as out_of_scope_at_risk_amount,
        sum(recovered_amount) as recovered_amount,
        sum(recovered_late_amount) as recovered_late_amount,
        sum(recovered_amount_net) as recovered_amount_net
    from {{ ref('recovery_cohorts') }}
    group by account_id, livemode, currency

),

episodes as (

    select
        account_id,
        livemode,
        currency,
        sum(case when is_in_scope then 1 else 0 end) as failed_count,
        {% for status in statuses %}
            sum(case when is_in_scope and recovery_status = '{{ status }}' then 1 else 0 end)
                as {{ status }}_count,
            sum(case when is_in_scope and recovery_status = '{{ status }}' then at_risk_amount else 0 end)
                as {{ status }}_at_risk_amount,
        {% endfor %}
        sum(case when is_in_scope then at_risk_amount else 0 end) as at_risk_amount,
        sum(case when is_in_scope then 0 else 1 end) as out_of_scope_count,
        sum(case when is_in_scope then 0 else at_risk_amount end) as out_of_scope_at_risk_amount,
        sum(case when is_in_scope and recovery_status = 'recovered' then recovered_amount else 0 end)
            as recovered_amount,
        sum(case when is_in_scope and recovery_status = 'recovered_late' then recovered_amount else 0 end)
            as recovered_late_amount,
        sum(case when is_in_scope then recovered_amount_net else 0 end) as recovered_amount_net
    from {{ ref('recovery_episodes') }}
    group by account_id, livemode, currency

),

different as (

    (select * from cohorts except all select * from episodes)
    union all
    (select * from episodes except all select * from cohorts)

)

select * from different
