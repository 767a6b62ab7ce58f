-- Every failed or blocked attempt has one reason, every first failure its episode, and every try after a failure is in
-- the performance of retries.
{{ config(meta={'dagster': {'ref': {'name': 'decline_reasons'}}}) }}

with attempts as (

    select
        *,
        lag(outcome) over (
            partition by account_id, livemode, episode_id order by episode_attempt_number
        ) as previous_outcome
    from {{ ref('payment_attempts') }}

),

expected as (

    select
        (select count(*) from attempts where outcome in ('failed', 'blocked')) as attempt_count,
        (select coalesce(sum(amount), 0) from attempts where outcome in ('failed', 'blocked')) as attempt_amount,
        (select count(*) from {{ ref('recovery_episodes') }}) as first_failure_count,
        (select count(*) from attempts where episode_id is not null and previous_outcome = 'failed') as retry_count,
        (
            select count(*) from attempts
            where episode_id is not null and previous_outcome = 'failed' and outcome = 'succeeded'
        ) as succeeded_count

),

found as (

    select
        (select coalesce(sum(attempt_count), 0) from {{ ref('decline_reasons') }}) as attempt_count,
        (select coalesce(sum(attempt_amount), 0) from {{ ref('decline_reasons') }}) as attempt_amount,
        (select coalesce(sum(first_failure_count), 0) from {{ ref('decline_reasons') }}) as first_failure_count,
        (select coalesce(sum(retry_count), 0) from {{ ref('retry_performance') }}) as retry_count,
        (select coalesce(sum(succeeded_count), 0) from {{ ref('retry_performance') }}) as succeeded_count

)

select
    expected.*,
    found.*
from expected
cross join found
where
    expected.attempt_count <> found.attempt_count
    or expected.attempt_amount <> found.attempt_amount
    or expected.first_failure_count <> found.first_failure_count
    or expected.retry_count <> found.retry_count
    or expected.succeeded_count <> found.succeeded_count
