{# Over 150 lines: one estimate in steps that only make sense together. #}
{% set day_ends = day_cells()[1:] + [checked_var('recovery_window_days')] %}
{% set kind = 'account_id, livemode, first_failure_class, first_decline_category' %}

{% set numbers = attempt_cells()[1:] %}
{% set seconds = ['0'] %}
{% for number in numbers %}{% do seconds.append('attempt_' ~ number ~ '_second') %}{% endfor %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where is_in_scope

),

-- When each episode made the attempts whose numbers begin a cell.
attempts as (

    select
        {% for number in numbers %}
            min(case when episode_attempt_number = {{ number }} then attempted_at end) as attempt_{{ number }}_at,
        {% endfor %}
        account_id,
        livemode,
        episode_id
    from {{ ref('payment_attempts') }}
    where episode_attempt_number in ({{ numbers | join(', ') }})
    group by account_id, livemode, episode_id

),

-- How long each past payment was in recovery: until it was recovered or canceled, or its window ended.
past as (

    select
        account_id,
        livemode,
        episode_id,
        first_failure_class,
        first_decline_category,
        first_failed_at,
        recovery_status = 'recovered' as is_recovered,
        date_diff('second', first_failed_at, least(window_ends_at, first_succeeded_at, canceled_at)) as end_second
    from episodes
    where is_matured

),

timed as (

    select
        {% for number in numbers %}
            -- If there is no such attempt, least() ignores the null and returns end_second.
            greatest(
                0, least(date_diff('second', past.first_failed_at, attempts.attempt_{{ number }}_at), past.end_second)
            ) as attempt_{{ number }}_second,
        {% endfor %}
        past.*
    from past
    left join attempts
        on
            past.account_id = attempts.account_id
            and past.livemode = attempts.livemode
            and past.episode_id = attempts.episode_id

),

staged as (

    select
        {{ kind }},
        is_recovered,
        unnest({{ attempt_cells() }}) as attempts_from,
        unnest([{{ seconds | join(', ') }}]) as first_second,
        unnest([{{ (seconds[1:] + ['end_second']) | join(', ') }}]) as last_second
    from timed

),

cells as (

    select
        unnest({{ day_cells() }}) as days_from,
        unnest({{ day_ends }}) as days_until

),

-- The weight of a payment is the time that it spent in the cell: a forecast may find it there at any moment.
counted as (

    select
        staged.account_id,
        staged.livemode,
        staged.first_failure_class,
        staged.first_decline_category,
        cells.days_from,
        staged.attempts_from,
        count(*) as payment_count,
        sum(
            least(staged.last_second, cells.days_until * 86400) - greatest(staged.first_second, cells.days_from * 86400)
        ) as seconds,
        coalesce(sum(
            least(staged.last_second, cells.days_until * 86400) - greatest(staged.first_second, cells.days_from * 86400)
        ) filter (where staged.is_recovered), 0) as recovered_seconds
    from staged
    inner join cells
        on
            staged.last_second > cells.days_from * 86400
            and staged.first_second < cells.days_until * 86400
    where staged.last_second > staged.first_second
    group by
        staged.account_id, staged.livemode, staged.first_failure_class, staged.first_decline_category,
        cells.days_from, staged.attempts_from

),

accounts as (

    select
        account_id,
        livemode,
        count(*) as account_payment_count
    from past
    group by account_id, livemode

),

kinds as (

    select distinct {{ kind }} from episodes

),

attempt_cells as (

    select unnest({{ attempt_cells() }}) as attempts_from

),

-- All cells of each kind of failure that the account has, also those in which no past payment was.
grid as (

    select
        kinds.*,
        cells.days_from,
        attempt_cells.attempts_from
    from kinds
    cross join cells
    cross join attempt_cells

),

summed as (

    select
        grid.*,
        accounts.account_payment_count,
        coalesce(counted.payment_count, 0) as payment_count,
        coalesce(counted.recovered_seconds / counted.seconds, 0) as cell_rate,
        coalesce(sum(counted.payment_count) over kinds_and_days, 0) as kind_payment_count,
        coalesce(sum(counted.recovered_seconds) over kinds_and_days / sum(counted.seconds) over kinds_and_days, 0)
            as kind_rate,
        coalesce(sum(counted.payment_count) over all_of_days, 0) as day_payment_count,
        coalesce(sum(counted.recovered_seconds) over all_of_days / sum(counted.seconds) over all_of_days, 0)
            as day_rate,
        sum(counted.recovered_seconds) over whole_accounts / sum(counted.seconds) over whole_accounts as account_rate
    from grid
    left join accounts
        on grid.account_id = accounts.account_id and grid.livemode = accounts.livemode
    left join counted
        on
            grid.account_id = counted.account_id
            and grid.livemode = counted.livemode
            and grid.first_failure_class = counted.first_failure_class
            and grid.first_decline_category = counted.first_decline_category
            and grid.days_from = counted.days_from
            and grid.attempts_from = counted.attempts_from
    window
        kinds_and_days as (
            partition by
                grid.account_id, grid.livemode, grid.first_failure_class, grid.first_decline_category, grid.days_from
        ),
        all_of_days as (partition by grid.account_id, grid.livemode, grid.days_from),
        whole_accounts as (partition by grid.account_id, grid.livemode)

),

-- Each estimate moves from that of the coarser cell to the cell's own rate as the number of its payments grows.
of_days as (

    select
        *,
        {{ shrunk_rate('day_rate', 'day_payment_count', 'account_rate') }} as shrunk_day_rate
    from summed

),

of_kinds as (

    select
        *,
        {{ shrunk_rate('kind_rate', 'kind_payment_count', 'shrunk_day_rate') }} as shrunk_kind_rate
    from of_days

),

estimated as (

    select
        *,
        round({{ shrunk_rate('cell_rate', 'payment_count', 'shrunk_kind_rate') }}, 6) as recovery_rate,
        least(payment_count + {{ recovery_prior_count() }}, account_payment_count) as effective_count
    from of_kinds

),

final as (

    select
        -- ids
        {{ kind }},
        days_from,
        attempts_from,

        -- numerics
        payment_count,
        recovery_rate,
        {{ wilson_lower('recovery_rate', 'effective_count') }} as recovery_rate_lower,
        {{ wilson_upper('recovery_rate', 'effective_count') }} as recovery_rate_upper
    from estimated

)

select * from final
