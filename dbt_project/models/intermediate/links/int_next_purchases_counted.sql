{#
    Each build counts everything again, so purchases are limited to the last days. The macros of rhythm.sql say when a
    retry could begin, as they do for the links themselves.
#}
{% set coincidence_days = 90 %}

with accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

-- Equal purchases of a customer, or of a guest's card, in a period after which a whole link gap has passed.
purchases as (

    select
        keyed.account_id,
        keyed.livemode,
        keyed.customer_id is null as is_guest,
        keyed.is_paid,
        keyed.started_at
        <= accounts.data_through_at - interval '{{ checked_var("link_gap_days") }} days' as is_gap_over,
        coalesce(keyed.customer_price_hash, keyed.card_price_hash) as payer_hash,
        date_diff('second', keyed.started_at, lead(keyed.started_at) over by_payer) as seconds_to_next,
        coalesce(
            keyed.order_name = lead(keyed.order_name) over by_payer
            and keyed.order_key <> lead(keyed.order_key) over by_payer,
            false
        ) as is_next_of_another_order
    from {{ ref('int_payment_intents_keyed') }} as keyed
    inner join accounts
        on keyed.account_id = accounts.account_id and keyed.livemode = accounts.livemode
    where
        (keyed.customer_price_hash is not null or keyed.card_price_hash is not null)
        and keyed.started_at
        > accounts.data_through_at - interval '{{ checked_var("link_gap_days") + coincidence_days }} days'
    window
        by_payer as (
            partition by coalesce(keyed.customer_price_hash, keyed.card_price_hash)
            order by keyed.started_at, keyed.payment_intent_id
        )

),

-- How often each payer buys. Unlike in link_retries, all successful purchases of the period count.
habits as (

    select
        payer_hash,
        count(case when seconds_to_next >= {{ visit_seconds() }} then 1 end) as gap_count,
        median(case when seconds_to_next >= {{ visit_seconds() }} then seconds_to_next end) as interval_seconds,
        mad(case when seconds_to_next >= {{ visit_seconds() }} then seconds_to_next end) as spread_seconds,
        count(case when seconds_to_next <= {{ equal_payment_seconds() }} then 1 end) as equal_count
    from purchases
    where is_paid and seconds_to_next is not null
    group by payer_hash

),

-- When a retry could begin if the purchase had failed: after the pause, and until the payer's next purchase is due. Two
-- purchases within a minute, seen twice, indicate equal subscriptions. The pause is then one minute.
retry_times as (

    select
        *,
        {{ pause_before_retry('equal_count >= 2') }} as pause_seconds,
        {{ is_rhythm_regular('interval_seconds', 'spread_seconds') }} as is_regular,
        interval_seconds - {{ rhythm_tolerance('gap_count', 'interval_seconds', 'spread_seconds') }} as due_seconds
    from habits

),

next_purchases as (

    select
        purchases.*,
        case
            when purchases.is_guest then {{ checked_var('guest_link_gap_days') * 86400 }}
            else {{ checked_var('link_gap_days') * 86400 }}
        end as gap_seconds,
        not purchases.is_next_of_another_order
        and purchases.seconds_to_next >= retry_times.pause_seconds
        and case
            when retry_times.gap_count < {{ rhythm_gap_count() }} then true
            when retry_times.is_regular then purchases.seconds_to_next < retry_times.due_seconds
            else purchases.is_guest or purchases.seconds_to_next <= {{ soon_after('retry_times.interval_seconds') }}
        end as is_in_doubt
    from purchases
    left join retry_times on purchases.payer_hash = retry_times.payer_hash
    where purchases.is_paid and purchases.is_gap_over

),

final as (

    select
        -- ids
        account_id,
        livemode,

        -- strings
        case when is_guest then 'card' else 'customer' end as payer,

        -- numerics
        count(*) as successes,
        count(case when seconds_to_next <= 86400 then 1 end) as within_a_day,
        count(case when seconds_to_next <= 86400 and is_in_doubt then 1 end) as within_a_day_in_doubt,
        count(case when seconds_to_next <= gap_seconds then 1 end) as within_the_gap,
        count(case when seconds_to_next <= gap_seconds and is_in_doubt then 1 end) as within_the_gap_in_doubt
    from next_purchases
    group by account_id, livemode, is_guest

)

select * from final
