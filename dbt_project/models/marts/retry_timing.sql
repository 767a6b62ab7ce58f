{# The smallest number of retries for which a failure code has rows of its own. #}
{% set frequent_code_count = 100 %}
{% set hours = {
    '1 under 1 h': 1, '2 1 to 6 h': 6, '3 6 to 24 h': 24, '4 24 to 48 h': 48, '5 48 to 72 h': 72, '6 3 to 5 d': 120,
    '7 5 to 7 d': 168, '8 7 to 14 d': 336, '9 14 d or more': none
} %}
{% set weekdays = [
    '1 Monday', '2 Tuesday', '3 Wednesday', '4 Thursday', '5 Friday', '6 Saturday', '7 Sunday'
] %}
{# For each dimension: a column that only its rows of summed_by_bucket have, and the number and the name of a bucket. #}
{% set dimensions = {
    'hours_since_previous_attempt': ['hours_number', 'hours_number', 'null'],
    'weekday': ['weekday', 'weekday', 'null'],
    'hour': ['weekday', 'hour', 'null'],
    'weekday_and_hour': ['weekday', '(weekday - 1) * 24 + hour', 'null'],
    'day_of_month': ['day_of_month', 'day_of_month', 'null'],
    'days_from_month_end': ['day_of_month', 'days_from_month_end', 'null'],
    'card_country': ['card_country', 'null', 'card_country'],
} %}
{% set keys = ['account_id', 'livemode', 'currency', 'previous_failure_class'] | join(', ') %}
{% set measures = ['retry_count', 'decided_count', 'succeeded_count', 'retried_amount', 'succeeded_amount'] %}

with attempts as (

    select
        *,
        {{ reporting_time('attempted_at') }} as attempted_on_clock_at
    from {{ ref('payment_attempts') }}
    where previous_outcome = 'failed'

),

retries as (

    select
        account_id,
        livemode,
        currency,
        previous_failure_class,
        previous_failure_code,
        case
            {% for upper in hours.values() if upper %}
                when hours_since_previous_episode_attempt < {{ upper }} then {{ loop.index }}
            {% endfor %}
            when hours_since_previous_episode_attempt is not null then {{ hours | length }}
        end as hours_number,
        isodow(attempted_on_clock_at) as weekday,
        hour(attempted_on_clock_at) as hour,
        day(attempted_on_clock_at) as day_of_month,
        day(last_day(attempted_on_clock_at)) - day(attempted_on_clock_at) as days_from_month_end,
        card_country,
        outcome,
        amount,
        captured_amount
    from attempts

),

-- Attempts are read once. Weekdays, hours and days are summed together, since there are few combinations.
summed_by_bucket as {{ materialized() }} (

    select
        {{ keys }},
        previous_failure_code,
        hours_number,
        weekday,
        hour,
        day_of_month,
        days_from_month_end,
        card_country,
        {% for column in ['hours_number', 'weekday', 'day_of_month', 'card_country'] %}
            grouping({{ column }}) = 0 as has_{{ column }},
        {% endfor %}
        count(*) as retry_count,
        count(*) filter (where outcome in ('succeeded', 'failed', 'blocked')) as decided_count,
        count(*) filter (where outcome = 'succeeded') as succeeded_count,
        coalesce(sum(amount), 0) as retried_amount,
        coalesce(sum(captured_amount) filter (where outcome = 'succeeded'), 0) as succeeded_amount
    from retries
    group by grouping sets (
        ({{ keys }}, previous_failure_code, hours_number),
        ({{ keys }}, previous_failure_code, weekday, hour),
        ({{ keys }}, previous_failure_code, day_of_month, days_from_month_end),
        ({{ keys }}, previous_failure_code, card_country)
    )

),

by_dimension as (

    {% for dimension, (present, number, name) in dimensions.items() %}
        select
            {{ keys }},
            previous_failure_code,
            '{{ dimension }}' as dimension,
            cast({{ number }} as bigint) as bucket_number,
            cast({{ name }} as varchar) as bucket_name,
            {{ measures | join(', ') }}
        from summed_by_bucket
        where has_{{ present }}
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

summed_by_code as (

    select
        {{ keys }},
        dimension,
        bucket_number,
        bucket_name,
        case when grouping(previous_failure_code) = 1 then 'all' else previous_failure_code end
            as previous_failure_code,
        {% for measure in measures %}
            cast(sum({{ measure }}) as bigint) as {{ measure }}{{ ',' if not loop.last }}
        {% endfor %}
    from by_dimension
    group by grouping sets (
        ({{ keys }}, dimension, bucket_number, bucket_name, previous_failure_code),
        ({{ keys }}, dimension, bucket_number, bucket_name)
    )

),

frequent as (

    select
        *,
        succeeded_count / nullif(cast(decided_count as double), 0) as success_rate
    from summed_by_code
    where previous_failure_code is not null
    qualify
        previous_failure_code = 'all'
        or sum(retry_count) over (partition by {{ keys }}, previous_failure_code, dimension)
        >= {{ frequent_code_count }}

),

final as (

    select
        -- ids
        account_id,
        livemode,
        currency,
        previous_failure_class,
        previous_failure_code,
        dimension,
        coalesce(
            case
                when dimension = 'hours_since_previous_attempt' then {{ hours.keys() | list }}[bucket_number]
                when dimension = 'weekday' then {{ weekdays }}[bucket_number]
                when dimension = 'weekday_and_hour'
                    then {{ weekdays }}[bucket_number // 24 + 1] || ' ' || lpad(cast(bucket_number % 24 as varchar), 2, '0')
                when dimension = 'card_country' then bucket_name
                else lpad(cast(bucket_number as varchar), 2, '0')
            end,
            'unknown'
        ) as bucket,

        -- numerics
        bucket_number,
        retry_count,
        decided_count,
        succeeded_count,
        success_rate,
        {{ wilson_lower('success_rate', 'decided_count') }} as success_rate_lower,
        {{ wilson_upper('success_rate', 'decided_count') }} as success_rate_upper,
        retried_amount,
        succeeded_amount
    from frequent

)

select * from final
