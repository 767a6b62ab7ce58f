{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'measured': ['created_at', 'started_at']}
) }}

{% set keys_of_touched %}
    select link_key_hash from {{ ref('int_payment_intents_summarized') }}
    where {{ in_changed_payment_intents(ref('int_payment_intents_summarized'), since='created_at') }}
    union
    select link_key_hash from {{ this }}
    where {{ in_changed_payment_intents(this, models=['int_payment_intents_touched', 'int_card_tests_flagged']) }}
{% endset %}
{% set is_of_touched = by_rowid(
    ref('int_payment_intents_summarized'), 'link_key_hash in (' ~ keys_of_touched ~ ')'
) %}

-- Whoever has a key that a touched payment has, or had until now.
with payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}
    where {{ is_of_touched if is_incremental() else 'true' }}

),

keyed as (

    select
        account_id,
        livemode,
        payment_intent_id,
        currency,
        link_tier,
        link_key_hash,
        first_instrument_key,
        first_succeeded_at,
        created_at,
        coalesce(first_attempted_at, first_succeeded_at, created_at) as started_at,
        coalesce(last_activity_at, first_succeeded_at, created_at) as last_activity_at,
        case link_tier
            when 'explicit' then interval '{{ var("explicit_link_gap_days") }} days'
            else interval '{{ var("link_gap_days") }} days'
        end as link_gap
    from payment_intents

),

starts_and_successes as (

    select
        link_key_hash,
        payment_intent_id,
        started_at as happened_at,
        0 as is_success
    from keyed
    union all
    select
        link_key_hash,
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
            partition by link_key_hash order by happened_at, is_success, payment_intent_id
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
            keyed.link_key_hash = counted.link_key_hash
            and keyed.payment_intent_id = counted.payment_intent_id
            and counted.is_success = 0
    window in_time as (
        partition by keyed.link_key_hash order by keyed.started_at, keyed.payment_intent_id
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
        ) over (partition by link_key_hash order by started_at, payment_intent_id) as episode_number
    from neighboured

),

positioned as (

    select
        *,
        first_value(payment_intent_id) over in_episode as episode_id,
        row_number() over in_episode as episode_position
    from divided
    window in_episode as (
        partition by link_key_hash, episode_number order by started_at, payment_intent_id
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
        created_at,
        started_at,

        -- the load
        {{ build_id() }} as _load_id
    from positioned

)

select * from final
