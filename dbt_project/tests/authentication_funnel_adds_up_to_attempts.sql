-- Each 3-D Secure result and each failed authentication is counted once, and no more payments are abandoned than
-- abandoned_authentications has.
{{ config(meta={'dagster': {'ref': {'name': 'authentication_funnel'}}}) }}

{% set is_counted = 'not is_card_testing' if checked_var('exclude_card_testing') else 'true' %}

with attempts as (

    select
        count(*) filter (where three_d_secure_result in ('authenticated', 'attempt_acknowledged'))
            as authenticated_count,
        count(*) filter (
            where
            three_d_secure_result in ('authenticated', 'attempt_acknowledged')
            and outcome in ('succeeded', 'authorized')
        ) as succeeded_count,
        count(*) filter (
            where
            three_d_secure_result in ('failed', 'processing_error')
            or (
                failure_class = 'authentication_failed'
                and coalesce(three_d_secure_result, '') not in ('authenticated', 'attempt_acknowledged')
            )
        ) as failed_count
    from {{ ref('payment_attempts') }}
    where {{ is_counted }}

),

abandoned as (

    select count(*) as abandoned_count
    from {{ ref('abandoned_authentications') }}

),

funnel as (

    select
        coalesce(sum(authenticated_count), 0) as authenticated_count,
        coalesce(sum(succeeded_count), 0) as succeeded_count,
        coalesce(sum(failed_count), 0) as failed_count,
        coalesce(sum(abandoned_count), 0) as abandoned_count
    from {{ ref('authentication_funnel') }}

)

select
    attempts.authenticated_count,
    funnel.authenticated_count as authenticated_count_of_funnel,
    attempts.succeeded_count,
    funnel.succeeded_count as succeeded_count_of_funnel,
    attempts.failed_count,
    funnel.failed_count as failed_count_of_funnel,
    abandoned.abandoned_count,
    funnel.abandoned_count as abandoned_count_of_funnel
from attempts
cross join abandoned
cross join funnel
where
    attempts.authenticated_count <> funnel.authenticated_count
    or attempts.succeeded_count <> funnel.succeeded_count
    or attempts.failed_count <> funnel.failed_count
    or abandoned.abandoned_count < funnel.abandoned_count
