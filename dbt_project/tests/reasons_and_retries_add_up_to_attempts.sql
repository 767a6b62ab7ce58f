-- Each failed or blocked attempt counts for one reason, each first failure belongs to one episode, and each attempt
-- after a failure is in retry_performance.
{{ config(meta={'dagster': {'ref': {'name': 'decline_reasons'}}}) }}

with attempts as (

    select * from {{ ref('payment_attempts') }}

),

expected as (

    select
        count(*) filter (where outcome in ('failed', 'blocked')) as attempt_count,
        coalesce(sum(amount) filter (where outcome in ('failed', 'blocked')), 0) as attempt_amount,
        count(*) filter (where previous_outcome = 'failed') as retry_count,
        count(*) filter (where previous_outcome = 'failed' and outcome = 'succeeded') as succeeded_count
    from attempts

),

episodes as (

    select count(*) as episode_count
    from {{ ref('recovery_episodes') }}

),

reasons as (

    select
        coalesce(sum(attempt_count), 0) as attempt_count,
        coalesce(sum(attempt_amount), 0) as attempt_amount,
        coalesce(sum(first_failure_count), 0) as first_failure_count
    from {{ ref('decline_reasons') }}

),

retries as (

    select
        coalesce(sum(retry_count), 0) as retry_count,
        coalesce(sum(succeeded_count), 0) as succeeded_count
    from {{ ref('retry_performance') }}

)

select
    expected.attempt_count,
    reasons.attempt_count as attempt_count_of_reasons,
    expected.attempt_amount,
    reasons.attempt_amount as attempt_amount_of_reasons,
    episodes.episode_count,
    reasons.first_failure_count,
    expected.retry_count,
    retries.retry_count as retry_count_of_retries,
    expected.succeeded_count,
    retries.succeeded_count as succeeded_count_of_retries
from expected
cross join episodes
cross join reasons
cross join retries
where
    expected.attempt_count <> reasons.attempt_count
    or expected.attempt_amount <> reasons.attempt_amount
    or episodes.episode_count <> reasons.first_failure_count
    or expected.retry_count <> retries.retry_count
    or expected.succeeded_count <> retries.succeeded_count
