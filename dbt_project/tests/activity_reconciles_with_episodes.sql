-- Each day opens with the closing figures of the day before, and closes with opening plus new less recovered, expired
-- and canceled. The last closing figures and the totals equal those of recovery_episodes, by count and by amount.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_activity_daily'}}}) }}

with days as (

    select
        *,
        lag(closing_in_recovery_count, 1, 0) over of_currency as closing_count_before,
        lag(closing_in_recovery_amount, 1, 0) over of_currency as closing_amount_before,
        lag(activity_date) over of_currency as date_before
    from {{ ref('recovery_activity_daily') }}
    window of_currency as (partition by account_id, livemode, currency order by activity_date)

),

flows as (

    select
        account_id,
        livemode,
        currency,
        sum(new_at_risk_count) as failed_count,
        sum(new_at_risk_amount) as failed_amount,
        sum(recovered_count) as recovered_count,
        sum(recovered_at_risk_amount) as recovered_amount,
        sum(expired_count) - sum(recovered_late_count) as lost_expired_count,
        sum(expired_at_risk_amount) - sum(recovered_late_at_risk_amount) as lost_expired_amount,
        sum(canceled_count) as lost_canceled_count,
        sum(canceled_at_risk_amount) as lost_canceled_amount,
        max_by(closing_in_recovery_count, activity_date) as in_recovery_count,
        max_by(closing_in_recovery_amount, activity_date) as in_recovery_amount,
        sum(reversed_amount) as reversed_amount
    from days
    group by account_id, livemode, currency

),

episodes as (

    select
        account_id,
        livemode,
        currency,
        count(*) as failed_count,
        sum(at_risk_amount) as failed_amount,
        {% for status in ['recovered', 'lost_expired', 'lost_canceled', 'in_recovery'] %}
            count(*) filter (where recovery_status = '{{ status }}') as {{ status }}_count,
            coalesce(sum(at_risk_amount) filter (where recovery_status = '{{ status }}'), 0) as {{ status }}_amount,
        {% endfor %}
        sum(recovered_amount - recovered_amount_net) as reversed_amount
    from {{ ref('recovery_episodes') }}
    where is_in_scope
    group by account_id, livemode, currency

)

select
    days.account_id,
    days.livemode,
    days.currency,
    days.activity_date,
    'a day does not follow from the one before' as what
from days
where
    days.opening_in_recovery_count <> days.closing_count_before
    or days.opening_in_recovery_amount <> days.closing_amount_before
    or days.closing_in_recovery_count < 0
    or days.closing_in_recovery_amount < 0
    or days.activity_date <> days.date_before + 1
    or days.opening_in_recovery_count + days.new_at_risk_count - days.recovered_count - days.expired_count
    - days.canceled_count <> days.closing_in_recovery_count
    or days.opening_in_recovery_amount + days.new_at_risk_amount - days.recovered_at_risk_amount
    - days.expired_at_risk_amount - days.canceled_at_risk_amount <> days.closing_in_recovery_amount
union all
select
    coalesce(flows.account_id, episodes.account_id) as account_id,
    coalesce(flows.livemode, episodes.livemode) as livemode,
    coalesce(flows.currency, episodes.currency) as currency,
    null as activity_date,
    'what came and went is not what the episodes say' as what
from flows
full outer join episodes
    on
        flows.account_id = episodes.account_id
        and flows.livemode = episodes.livemode
        and flows.currency is not distinct from episodes.currency
where
    false
    {% for measure in ['failed', 'recovered', 'lost_expired', 'lost_canceled', 'in_recovery'] %}
        or flows.{{ measure }}_count is distinct from episodes.{{ measure }}_count
        or flows.{{ measure }}_amount is distinct from episodes.{{ measure }}_amount
    {% endfor %}
    or flows.reversed_amount is distinct from episodes.reversed_amount
