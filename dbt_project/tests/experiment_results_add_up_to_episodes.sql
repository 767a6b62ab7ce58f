-- The rows of each currency, and those of all currencies, count each episode with an arm once.
{{ config(meta={'dagster': {'ref': {'name': 'experiment_results'}}}) }}

{% set counts = ['episode_count', 'matured_count', 'recovered_count'] %}

with episodes as (

    select
        *,
        unnest([false, true]) as is_all_currencies
    from {{ ref('recovery_episodes') }}
    where is_in_scope and (experiment_arm is not null or has_several_experiment_arms)

),

expected as (

    select
        account_id,
        livemode,
        is_all_currencies,
        experiment_arm,
        case when not is_all_currencies then currency end as currency,
        count(*) as episode_count,
        count(*) filter (where is_matured) as matured_count,
        count(*) filter (where is_matured and recovery_status = 'recovered') as recovered_count,
        sum(case when not is_all_currencies then if(is_matured, at_risk_amount, 0) end) as at_risk_amount,
        sum(case when not is_all_currencies then if(is_matured, recovered_in_window_amount, 0) end)
            as recovered_amount
    from episodes
    group by
        account_id, livemode, is_all_currencies, experiment_arm, case when not is_all_currencies then currency end

),

results as (

    select * from {{ ref('experiment_results') }}

)

select
    coalesce(results.account_id, expected.account_id) as account_id,
    coalesce(results.livemode, expected.livemode) as livemode,
    coalesce(results.currency, expected.currency) as currency,
    coalesce(results.experiment_arm, expected.experiment_arm) as experiment_arm
from results
full outer join expected
    on
        results.account_id = expected.account_id
        and results.livemode = expected.livemode
        and results.currency is not distinct from expected.currency
        and results.experiment_arm is not distinct from expected.experiment_arm
        and results.is_all_currencies = expected.is_all_currencies
where
    false
    {% for measure in counts + ['at_risk_amount', 'recovered_amount'] %}
        or results.{{ measure }} is distinct from expected.{{ measure }}
    {% endfor %}
