{# Over 150 lines, since requests come from charges, failures without a charge, and waiting PaymentIntents. #}
{% set is_excluded = 'is_card_testing' if checked_var('exclude_card_testing') else 'false' %}

with attempts as (

    select
        account_id,
        livemode,
        payment_intent_id,
        attempt_id,
        currency,
        coalesce(three_d_secure_flow, 'unknown') as flow,
        case
            when three_d_secure_result in ('authenticated', 'attempt_acknowledged') then 'authenticated'
            else 'failed'
        end as result,
        outcome,
        attempted_at as requested_at
    from {{ ref('payment_attempts') }}
    where
        not {{ is_excluded }}
        and (
            three_d_secure_result in ('authenticated', 'attempt_acknowledged', 'failed', 'processing_error')
            or failure_class = 'authentication_failed'
        )

),

-- Times from the request to the charge. An attempt follows a request if its charge was made while the PaymentIntent
-- waited for the customer.
attempts_timed as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.attempt_id,
        min_by(date_diff('second', history.entered_at, attempts.requested_at), history.entered_at) as seconds
    from attempts
    inner join {{ ref('payment_intent_status_history') }} as history
        on
            attempts.account_id = history.account_id
            and attempts.livemode = history.livemode
            and attempts.payment_intent_id = history.payment_intent_id
            and attempts.requested_at between history.entered_at and history.left_at
    where
        attempts.result = 'authenticated'
        and history.status = 'requires_action'
        and not history.is_entered_at_estimated
    group by attempts.account_id, attempts.livemode, attempts.attempt_id

),

-- Customers who have not come back. A PaymentIntent that does not accept cards waits for a redirect of another method.
unfinished as (

    select
        waiting.account_id,
        waiting.livemode,
        waiting.currency,
        waiting.waiting_since_at as requested_at,
        case when abandoned.payment_intent_id is null then 'waiting' else 'abandoned' end as result
    from {{ ref('int_payment_intents_waiting') }} as waiting
    inner join {{ ref('int_payment_intents_summarized') }} as summarized
        on
            waiting.account_id = summarized.account_id
            and waiting.livemode = summarized.livemode
            and waiting.payment_intent_id = summarized.payment_intent_id
    left join {{ ref('abandoned_authentications') }} as abandoned
        on
            waiting.account_id = abandoned.account_id
            and waiting.livemode = abandoned.livemode
            and waiting.payment_intent_id = abandoned.payment_intent_id
    where
        waiting.waiting_for is null
        and list_contains(string_split(summarized.payment_method_types, ' '), 'card')

),

requests as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.currency,
        attempts.flow,
        attempts.result,
        attempts.outcome,
        attempts.requested_at,
        attempts_timed.seconds
    from attempts
    left join attempts_timed
        on
            attempts.account_id = attempts_timed.account_id
            and attempts.livemode = attempts_timed.livemode
            and attempts.attempt_id = attempts_timed.attempt_id
    union all by name
    select
        *,
        'unknown' as flow
    from unfinished

),

accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

dated as (

    select
        requests.*,
        cast(date_trunc('week', {{ reporting_date('requests.requested_at') }}) as date) as requested_week,
        {{ reporting_date('accounts.payment_intent_events_known_since_at') }} as events_known_since_date
    from requests
    left join accounts
        on requests.account_id = accounts.account_id and requests.livemode = accounts.livemode

),

final as (

    select
        -- ids
        account_id,
        livemode,
        requested_week,
        currency,
        flow,

        -- numerics
        count(*) as requested_count,
        count(*) filter (where result = 'authenticated') as authenticated_count,
        count(*) filter (where result = 'authenticated' and outcome in ('succeeded', 'authorized')) as succeeded_count,
        count(*) filter (where result = 'authenticated' and outcome in ('failed', 'blocked')) as declined_count,
        count(*) filter (where result = 'authenticated' and outcome = 'processing') as undecided_count,
        count(*) filter (where result = 'failed') as failed_count,
        count(*) filter (where result = 'abandoned') as abandoned_count,
        count(*) filter (where result = 'waiting') as waiting_count,
        count(seconds) as timed_count,
        median(seconds) as median_seconds_to_authenticate,

        -- booleans
        coalesce(bool_and(events_known_since_date < requested_week), false) as is_history_known
    from dated
    group by account_id, livemode, requested_week, currency, flow

)

select * from final
