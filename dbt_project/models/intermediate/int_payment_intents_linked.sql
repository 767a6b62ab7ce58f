{{ config(materialized='table') }}

{% set link_key = 'account_id, livemode, currency, link_key_hash' %}

with payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}

),

tiered as (

    select
        *,
        coalesce(first_attempted_at, first_succeeded_at) as started_at,
        case
            when first_attempted_at is null and first_succeeded_at is null then 'none'
            when order_key is not null then 'explicit'
            when customer_id is not null then 'customer_amount'
            when first_instrument_key is not null then 'instrument_amount'
            else 'none'
        end as link_tier
    from payment_intents

),

keyed as (

    select
        account_id,
        livemode,
        payment_intent_id,
        currency,
        link_tier,
        first_instrument_key,
        first_succeeded_at,
        coalesce(started_at, created_at) as started_at,
        coalesce(last_activity_at, first_succeeded_at, created_at) as last_activity_at,
        md5(link_tier || ':' || case link_tier
            when 'explicit' then order_key
            when 'customer_amount' then customer_id || ':' || amount
            when 'instrument_amount' then first_instrument_key || ':' || amount
            else payment_intent_id
        end) as link_key_hash,
        case link_tier
            when 'explicit' then interval '{{ var("explicit_link_gap_days") }} days'
            else interval '{{ var("link_gap_days") }} days'
        end as link_gap
    from tiered

),

starts_and_successes as (

    select
        {{ link_key }},
        payment_intent_id,
        started_at as happened_at,
        0 as is_success
    from keyed
    union all
    select
        {{ link_key }},
        payment_intent_id,
        first_succeeded_at as happened_at,
        1 as is_success
    from keyed
    where first_succeeded_at is not null

),

-- A start comes before a success of the same second: a payment that succeeds at once must not end what it pays for.
counted as (

    select
        *,
        sum(is_success) over (
            partition by {{ link_key }} order by happened_at, is_success, payment_intent_id
        ) as successes_before
    from starts_and_successes

),

neighboured as (

    select
        keyed.*,
        counted.successes_before > lag(counted.successes_before) over in_time as is_paid_in_between,
        lag(keyed.first_instrument_key) over in_time as previous_instrument_key,
        max(keyed.last_activity_at) over (
            in_time rows between unbounded preceding and 1 preceding
        ) as previous_activity_at
    from keyed
    inner join counted
        on
            keyed.account_id = counted.account_id
            and keyed.livemode = counted.livemode
            and keyed.payment_intent_id = counted.payment_intent_id
            and counted.is_success = 0
    window in_time as (
        partition by keyed.account_id, keyed.livemode, keyed.currency, keyed.link_key_hash
        order by keyed.started_at, keyed.payment_intent_id
    )

),

divided as (

    select
        *,
        sum(
            case
                when previous_activity_at is null or is_paid_in_between then 1
                when started_at > previous_activity_at + link_gap then 1
                else 0
            end
        ) over (partition by {{ link_key }} order by started_at, payment_intent_id) as episode_number
    from neighboured

),

positioned as (

    select
        *,
        first_value(payment_intent_id) over in_episode as episode_id,
        row_number() over in_episode as episode_position
    from divided
    window in_episode as (
        partition by {{ link_key }}, episode_number order by started_at, payment_intent_id
    )

),

final as (

    select
        -- ids
        account_id,
        livemode,
        payment_intent_id,
        episode_id,
        link_key_hash,

        -- strings
        currency,
        link_tier,
        case
            when episode_position = 1 then null
            when link_tier = 'explicit' then 'exact'
            when
                link_tier = 'customer_amount'
                and (
                    first_instrument_key = previous_instrument_key
                    or started_at < previous_activity_at + interval '24 hours'
                )
                then 'high'
            else 'medium'
        end as link_confidence,

        -- numerics
        episode_position,

        -- timestamps
        started_at
    from positioned

)

select * from final
