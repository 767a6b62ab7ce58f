{# Over 150 lines, since it has seven dimensions. #}
{# A failure code has rows of its own if at least this many retries followed it. #}
{% set frequent_code_count = 100 %}
{% set hours = {
    '1 under 1 h': 1, '2 1 to 6 h': 6, '3 6 to 24 h': 24, '4 24 to 48 h': 48, '5 48 to 72 h': 72, '6 3 to 5 d': 120,
    '7 5 to 7 d': 168, '8 7 to 14 d': 336, '9 14 d or more': none
} %}
{% set weekdays = [
    '1 Monday', '2 Tuesday', '3 Wednesday', '4 Thursday', '5 Friday', '6 Saturday', '7 Sunday'
] %}
{# For each dimension: the number and the name of a bucket. #}
{% set dimensions = {
    'hours_since_previous_attempt': ['hours_number', 'null'],
    'weekday': ['attempted_weekday', 'null'],
    'hour': ['attempted_hour', 'null'],
    'weekday_and_hour': ['(attempted_weekday - 1) * 24 + attempted_hour', 'null'],
    'day_of_month': ['day_of_month', 'null'],
    'days_from_month_end': ['days_from_month_end', 'null'],
    'card_country': ['null', 'card_country'],
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

-- Attempts are read once.
retries as {{ materialized() }} (

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
        isodow(attempted_on_clock_at) as attempted_weekday,
        hour(attempted_on_clock_at) as attempted_hour,
        day(attempted_on_clock_at) as day_of_month,
        day(last_day(attempted_on_clock_at)) - day(attempted_on_clock_at) as days_from_month_end,
        card_country,
        outcome,
        amount,
        captured_amount
    from attempts

),

summed_by_code as (

    {% for dimension, (number, name) in dimensions.items() %}
        select
            {{ keys }},
            previous_failure_code,
            '{{ dimension }}' as dimension,
            cast({{ number }} as bigint) as bucket_number,
            cast({{ name }} as varchar) as bucket_name,
            count(*) as retry_count,
            count(*) filter (where outcome in ('succeeded', 'failed', 'blocked')) as decided_count,
            count(*) filter (where outcome = 'succeeded') as succeeded_count,
            coalesce(sum(amount), 0) as retried_amount,
            coalesce(sum(captured_amount) filter (where outcome = 'succeeded'), 0) as succeeded_amount
        from retries
        group by {{ keys }}, previous_failure_code, {{ name if number == 'null' else number }}
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

summed as (

    select
        {{ keys }},
        'all' as previous_failure_code,
        dimension,
        bucket_number,
        bucket_name,
        {% for measure in measures %}
            sum({{ measure }}) as {{ measure }},
        {% endfor %}
        true as is_shown
    from summed_by_code
    group by {{ keys }}, dimension, bucket_number, bucket_name
    union all by name
    select
        *,
        sum(retry_count) over (partition by {{ keys }}, previous_failure_code, dimension)
        >= {{ frequent_code_count }} as is_shown
    from summed_by_code
    where previous_failure_code is not null

),

rated as (

    select
        *,
        succeeded_count / nullif(cast(decided_count as double), 0) as success_rate
    from summed
    where is_shown

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
                    then
                        {{ weekdays }}[bucket_number // 24 + 1]
                        || ' ' || lpad(cast(bucket_number % 24 as varchar), 2, '0')
                when dimension = 'card_country' then bucket_name
                else lpad(cast(bucket_number as varchar), 2, '0')
            end,
            'unknown'
        ) as bucket,

        -- numerics
        bucket_number,
        cast(retry_count as bigint) as retry_count,
        cast(decided_count as bigint) as decided_count,
        cast(succeeded_count as bigint) as succeeded_count,
        success_rate,
        {{ wilson_lower('success_rate', 'decided_count') }} as success_rate_lower,
        {{ wilson_upper('success_rate', 'decided_count') }} as success_rate_upper,
        cast(retried_amount as bigint) as retried_amount,
        cast(succeeded_amount as bigint) as succeeded_amount
    from rated

)

select * from final
