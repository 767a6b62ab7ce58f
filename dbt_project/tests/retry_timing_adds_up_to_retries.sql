-- Each dimension of retry_timing counts all retries of retry_performance, and no code has more than all codes together.
{{ config(meta={'dagster': {'ref': {'name': 'retry_timing'}}}) }}

{% set keys = ['account_id', 'livemode', 'currency', 'previous_failure_class'] %}
{% set measures = ['retry_count', 'decided_count', 'succeeded_count', 'retried_amount', 'succeeded_amount'] %}

with timing as (

    select * from {{ ref('retry_timing') }}

),

dimensions as (

    select
        {{ keys | join(', ') }},
        {% for measure in measures %}
            sum({{ measure }}) as {{ measure }},
        {% endfor %}
        dimension
    from timing
    where previous_failure_code = 'all'
    group by {{ keys | join(', ') }}, dimension

),

performance as (

    select
        {{ keys | join(', ') }},
        sum(retry_count) as retry_count,
        sum(retry_count - undecided_count) as decided_count,
        sum(succeeded_count) as succeeded_count,
        coalesce(sum(retried_amount), 0) as retried_amount,
        sum(succeeded_amount) as succeeded_amount
    from {{ ref('retry_performance') }}
    group by {{ keys | join(', ') }}

),

expected as (

    select
        performance.*,
        every_dimension.dimension
    from performance
    cross join (
        values
        ('hours_since_previous_attempt'),
        ('weekday'),
        ('hour'),
        ('weekday_and_hour'),
        ('day_of_month'),
        ('days_from_month_end'),
        ('card_country')
    ) as every_dimension (dimension)

)

select
    coalesce(dimensions.account_id, expected.account_id) as account_id,
    coalesce(dimensions.dimension, expected.dimension) as dimension,
    coalesce(dimensions.previous_failure_class, expected.previous_failure_class) as previous_failure_class,
    'differs from retry_performance' as fault
from dimensions
full outer join expected
    on
        dimensions.account_id = expected.account_id
        and dimensions.livemode = expected.livemode
        and dimensions.currency is not distinct from expected.currency
        and dimensions.previous_failure_class = expected.previous_failure_class
        and dimensions.dimension = expected.dimension
where
    false
    {% for measure in measures %}
        or dimensions.{{ measure }} is distinct from expected.{{ measure }}
    {% endfor %}

union all

select
    codes.account_id,
    codes.dimension,
    codes.previous_failure_class,
    'counts more for its codes than for all codes' as fault
from timing as codes
left join timing as all_codes
    on
        codes.account_id = all_codes.account_id
        and codes.livemode = all_codes.livemode
        and codes.currency is not distinct from all_codes.currency
        and codes.previous_failure_class = all_codes.previous_failure_class
        and codes.dimension = all_codes.dimension
        and codes.bucket = all_codes.bucket
        and all_codes.previous_failure_code = 'all'
group by
    codes.account_id, codes.livemode, codes.currency, codes.previous_failure_class, codes.dimension, codes.bucket
having
    sum(case when codes.previous_failure_code <> 'all' then codes.retry_count else 0 end)
    > coalesce(max(all_codes.retry_count), 0)
