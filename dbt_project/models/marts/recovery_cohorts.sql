{% set statuses = ['recovered', 'recovered_late', 'in_recovery', 'lost_canceled', 'lost_expired'] %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}

),

summed as (

    select
        account_id,
        livemode,
        first_failed_date,
        currency,
        first_failure_class,
        count(*) filter (where is_in_scope) as failed_count,
        count(*) filter (where not is_in_scope) as out_of_scope_count,
        {% for status in statuses %}
            count(*) filter (where is_in_scope and recovery_status = '{{ status }}') as {{ status }}_count,
            sum(at_risk_amount) filter (where is_in_scope and recovery_status = '{{ status }}')
                as {{ status }}_at_risk_amount,
        {% endfor %}
        sum(at_risk_amount) filter (where is_in_scope) as at_risk_amount,
        sum(at_risk_amount) filter (where not is_in_scope) as out_of_scope_at_risk_amount,
        sum(recovered_in_window_amount) filter (where is_in_scope) as recovered_amount,
        sum(recovered_amount - recovered_in_window_amount) filter (where is_in_scope) as recovered_late_amount,
        sum(recovered_amount_net) filter (where is_in_scope) as recovered_amount_net,
        count(*) filter (where is_in_scope and recovery_status_strict = 'recovered') as recovered_strict_count,
        sum(recovered_amount_strict) filter (where is_in_scope and recovery_status_strict = 'recovered')
            as recovered_amount_strict,
        bool_and(is_matured) as is_matured
    from episodes
    group by account_id, livemode, first_failed_date, currency, first_failure_class

),

rated as (

    select
        *,
        recovered_count / nullif(cast(failed_count as double), 0) as recovery_rate_to_date,
        recovered_strict_count / nullif(cast(failed_count as double), 0) as recovery_rate_strict_to_date,
        coalesce(recovered_amount, 0) / nullif(cast(at_risk_amount as double), 0) as amount_recovery_rate_to_date
    from summed

),

final as (

    select
        -- ids
        account_id,
        livemode,
        first_failed_date,
        currency,
        first_failure_class,

        -- numerics
        failed_count,
        {% for status in statuses %}
            {{ status }}_count,
        {% endfor %}
        recovered_strict_count,
        out_of_scope_count,
        cast(coalesce(at_risk_amount, 0) as bigint) as at_risk_amount,
        {% for status in statuses %}
            cast(coalesce({{ status }}_at_risk_amount, 0) as bigint) as {{ status }}_at_risk_amount,
        {% endfor %}
        cast(coalesce(out_of_scope_at_risk_amount, 0) as bigint) as out_of_scope_at_risk_amount,
        cast(coalesce(recovered_amount, 0) as bigint) as recovered_amount,
        cast(coalesce(recovered_late_amount, 0) as bigint) as recovered_late_amount,
        cast(coalesce(recovered_amount_net, 0) as bigint) as recovered_amount_net,
        cast(coalesce(recovered_amount_strict, 0) as bigint) as recovered_amount_strict,
        recovery_rate_to_date,
        case when is_matured then recovery_rate_to_date end as recovery_rate_matured,
        recovery_rate_strict_to_date,
        case when is_matured then recovery_rate_strict_to_date end as recovery_rate_strict_matured,
        amount_recovery_rate_to_date,
        case when is_matured then amount_recovery_rate_to_date end as amount_recovery_rate_matured,

        -- booleans
        is_matured
    from rated

)

select * from final
