with attempts as (

    select
        *,
        {{ reporting_time('attempted_at') }} as attempted_on_clock_at
    from {{ ref('payment_attempts') }}
    where previous_outcome = 'failed'

),

final as (

    select
        -- ids
        account_id,
        livemode,
        currency,
        episode_attempt_number as attempt_number,
        previous_failure_class,
        cast(isodow(attempted_on_clock_at) as bigint) as attempted_weekday,
        cast(hour(attempted_on_clock_at) as bigint) as attempted_hour,

        -- numerics
        count(*) as retry_count,
        count(*) filter (where outcome = 'succeeded') as succeeded_count,
        count(*) filter (where outcome in ('authorized', 'processing')) as undecided_count,
        count(*) filter (where outcome = 'failed') as failed_count,
        count(*) filter (where outcome = 'blocked') as blocked_count,
        count(*) filter (where is_wasted_retry) as wasted_count,
        count(*) filter (where is_retried_too_early) as too_early_count,
        count(*) filter (where is_card_data_retry) as card_data_count,
        count(previous_advice_code) as previous_advice_code_count,
        cast(sum(amount) as bigint) as retried_amount,
        cast(coalesce(sum(captured_amount) filter (where outcome = 'succeeded'), 0) as bigint) as succeeded_amount,
        median(hours_since_previous_attempt) as median_hours_since_previous_attempt
    from attempts
    group by
        account_id, livemode, currency, episode_attempt_number, previous_failure_class,
        isodow(attempted_on_clock_at), hour(attempted_on_clock_at)

)

select * from final
