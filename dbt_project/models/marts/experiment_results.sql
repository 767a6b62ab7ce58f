{#
    Over 150 lines, since one table has the rates, their differences and the check of the shares. It reads
    recovery_episodes only: int_episode_totals has found out which arm the payments of an episode name.
#}
{% set control_arm = checked_var('experiment_control_arm') | replace("'", "''") %}
{% set shares = checked_var('experiment_arm_shares') %}
{% set total_share = shares.values() | sum %}
{# Limits of chi-square for a probability of 0.001, for 1 to 9 degrees of freedom. #}
{% set limits = [10.828, 13.816, 16.266, 18.467, 20.515, 22.458, 24.322, 26.124, 27.877] %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where is_in_scope and (experiment_arm is not null or has_several_experiment_arms)

),

accounts as (

    select
        account_id,
        livemode,
        count(distinct experiment_arm) as arm_count,
        case when bool_or(experiment_arm = '{{ control_arm }}') then '{{ control_arm }}' else min(experiment_arm) end
            as control_arm
    from episodes
    group by account_id, livemode

),

of_currencies as (

    select
        account_id,
        livemode,
        currency,
        experiment_arm,
        false as is_all_currencies,
        count(*) as episode_count,
        count(*) filter (where is_matured) as matured_count,
        count(*) filter (where is_matured and recovery_status = 'recovered') as recovered_count,
        coalesce(sum(at_risk_amount) filter (where is_matured), 0) as at_risk_amount,
        coalesce(sum(recovered_in_window_amount) filter (where is_matured), 0) as recovered_amount
    from episodes
    group by account_id, livemode, currency, experiment_arm

),

-- Counts of different currencies can be added; amounts cannot.
unioned as (

    select * from of_currencies
    union all by name
    select
        account_id,
        livemode,
        experiment_arm,
        true as is_all_currencies,
        sum(episode_count) as episode_count,
        sum(matured_count) as matured_count,
        sum(recovered_count) as recovered_count
    from of_currencies
    group by account_id, livemode, experiment_arm

),

rated as (

    select
        unioned.*,
        accounts.arm_count,
        accounts.control_arm,
        unioned.experiment_arm = accounts.control_arm as is_control,
        unioned.recovered_count / nullif(cast(unioned.matured_count as double), 0) as recovery_rate,
        {% if shares %}
            case unioned.experiment_arm
                {% for arm, share in shares.items() %}
                    when '{{ arm | replace("'", "''") }}' then {{ share }} / cast({{ total_share }} as double)
                {% endfor %}
                else case when unioned.experiment_arm is not null then 0.0 end
            end as expected_share,
            {{ shares.values() | min }} / cast({{ total_share }} as double) as smallest_share,
            {{ shares | length }} as expected_arm_count
        {% else %}
            case when unioned.experiment_arm is not null then 1.0 / accounts.arm_count end as expected_share,
            1.0 / accounts.arm_count as smallest_share,
            accounts.arm_count as expected_arm_count
        {% endif %}
    from unioned
    inner join accounts
        on unioned.account_id = accounts.account_id and unioned.livemode = accounts.livemode

),

with_intervals as (

    select
        *,
        {{ wilson_lower('recovery_rate', 'matured_count') }} as recovery_rate_lower,
        {{ wilson_upper('recovery_rate', 'matured_count') }} as recovery_rate_upper,
        sum(episode_count) filter (where experiment_arm is not null) over in_currency as assigned_count
    from rated
    window in_currency as (partition by account_id, livemode, is_all_currencies, currency)

),

-- Chi-square is the sum of observed^2 / expected, less the number of observations. Arms without a payment add nothing.
compared as (

    select
        *,
        max(case when is_control then recovery_rate end) over in_currency as control_rate,
        max(case when is_control then recovery_rate_lower end) over in_currency as control_rate_lower,
        max(case when is_control then recovery_rate_upper end) over in_currency as control_rate_upper,
        bool_or(expected_share = 0) over in_currency as has_unexpected_arm,
        sum(episode_count * episode_count / nullif(expected_share * assigned_count, 0)) over in_currency
        - assigned_count as chi_square,
        case expected_arm_count
            {% for limit in limits %}
                when {{ loop.index + 1 }} then {{ limit }}
            {% endfor %}
        end as chi_square_limit
    from with_intervals
    window in_currency as (partition by account_id, livemode, is_all_currencies, currency)

),

-- Newcombe's interval of a difference of two rates, from their Wilson intervals.
differences as (

    select
        *,
        recovery_rate - control_rate as rate_difference,
        recovery_rate - control_rate
        - sqrt(power(recovery_rate - recovery_rate_lower, 2) + power(control_rate_upper - control_rate, 2))
            as rate_difference_lower,
        recovery_rate - control_rate
        + sqrt(power(recovery_rate_upper - recovery_rate, 2) + power(control_rate - control_rate_lower, 2))
            as rate_difference_upper,
        smallest_share * assigned_count >= 5 and chi_square_limit is not null as is_ratio_checked
    from compared

),

final as (

    select
        -- ids
        account_id,
        livemode,
        currency,
        cast('{{ checked_var("experiment_metadata_key") }}' as varchar) as experiment_key,
        experiment_arm,
        control_arm,

        -- numerics
        cast(episode_count as bigint) as episode_count,
        cast(matured_count as bigint) as matured_count,
        cast(recovered_count as bigint) as recovered_count,
        recovery_rate,
        recovery_rate_lower,
        recovery_rate_upper,
        cast(at_risk_amount as bigint) as at_risk_amount,
        cast(recovered_amount as bigint) as recovered_amount,
        recovered_amount / nullif(cast(at_risk_amount as double), 0) as amount_recovery_rate,
        {% for column in ['rate_difference', 'rate_difference_lower', 'rate_difference_upper'] %}
            case when not is_control then {{ column }} end as {{ column }},
        {% endfor %}
        cast(expected_share as double) as expected_share,
        case when experiment_arm is not null then episode_count / cast(assigned_count as double) end as episode_share,
        case when is_ratio_checked and not has_unexpected_arm then cast(chi_square as double) end
            as sample_ratio_chi_square,
        case when is_ratio_checked then cast(chi_square_limit as double) end as sample_ratio_limit,

        -- booleans
        case when not is_control then rate_difference_lower > 0 or rate_difference_upper < 0 end as is_significant,
        case when is_ratio_checked then has_unexpected_arm or chi_square > chi_square_limit end
            as has_sample_ratio_mismatch,
        coalesce(is_control, false) as is_control,
        experiment_arm is null as is_several_arms,
        is_all_currencies
    from differences

)

select * from final
