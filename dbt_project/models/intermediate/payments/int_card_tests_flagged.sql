{#
    More than 150 lines, since the rows that a build reads and the rows that it writes follow from one window of time.

    Incremental: a build writes the attempts of changed PaymentIntents, and attempts made minutes before or after them
    whose flag changes. An attempt that is gone, or no longer small, loses its row.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'attempt_id'],
    meta={'tombstone': 'is_card_testing is null'}
) }}

{#
    W is the longer of the two windows. A flag depends on attempts up to W before and after, and a card is new if it was
    not tried in the W before. So a change at time c changes flags from c - W to c + 2W, and these depend on attempts
    from c - 3W to c + 3W. Time is divided into buckets of length W, so that a build finds these attempts with equality
    joins.
#}
{# Declares the dependency: dbt does not see a reference inside a macro that a full build does not call. #}
{% set changed_model = ref('int_payment_intents_changed') %}
{% set minutes = [checked_var('card_testing_window_minutes'), checked_var('card_testing_tiny_window_minutes')] | max %}
{% set bucket %}
    cast(floor(date_diff('second', timestamp '1970-01-01', attempted_at) / {{ minutes * 60 }}.0) as bigint)
{% endset %}
{% set payer = "account_id, livemode, currency, coalesce(customer_id, '')" %}
{# A PaymentIntent begins no later than its attempts. One day is allowed for differing clocks. #}
{% set oldest_nearby %}
    {{- oldest_new('int_payment_intents_changed', 'begun_at') }} - interval '1 day' - interval '{{ 4 * minutes }} minutes'
{%- endset %}
{% set is_nearby %}
    {{ by_rowid(
        ref('int_payment_attempts_unioned'),
        '(' ~ payer ~ ', ' ~ bucket ~ ') in
        (select account_id, livemode, currency, customer_key, bucket from nearby_buckets)
        and attempted_at >= ' ~ oldest_nearby
    ) }}
{% endset %}

with small_amounts as (

    select
        code as currency,
        minor_units_per_usd * {{ checked_var('card_testing_max_usd') }} as max_amount,
        minor_units_per_usd * {{ checked_var('card_testing_tiny_max_usd') }} as tiny_max_amount
    from {{ ref('currencies') }}

),

{% if is_incremental() %}
    changed_attempts as (

        select
            account_id,
            livemode,
            currency,
            customer_id,
            attempted_at
        from {{ ref('int_payment_attempts_unioned') }}
        where {{ is_new_since_last_build() }}
        union all
        select
            account_id,
            livemode,
            currency,
            customer_id,
            attempted_at
        from {{ this }}
        where {{ in_changed_payment_intents(this, models=['int_payment_attempts_unioned']) }}

    ),

    changed_buckets as (

        select distinct
            account_id,
            livemode,
            currency,
            coalesce(customer_id, '') as customer_key,
            {{ bucket }} as bucket
        from changed_attempts

    ),

    nearby_buckets as (

        select
            changed_buckets.account_id,
            changed_buckets.livemode,
            changed_buckets.currency,
            changed_buckets.customer_key,
            changed_buckets.bucket + distances.distance as bucket,
            bool_or(distances.distance between -1 and 2) as may_change
        from changed_buckets
        cross join (values (-3), (-2), (-1), (0), (1), (2), (3)) as distances (distance)
        group by
            changed_buckets.account_id,
            changed_buckets.livemode,
            changed_buckets.currency,
            changed_buckets.customer_key,
            changed_buckets.bucket + distances.distance

    ),
{% endif %}

attempts as (

    select
        account_id,
        livemode,
        attempt_id,
        payment_intent_id,
        customer_id,
        currency,
        card_fingerprint,
        attempt_number,
        amount,
        attempted_at,
        coalesce(customer_id, '') as customer_key,
        {{ bucket }} as bucket,
        coalesce(outcome = 'blocked' or failure_class = 'declined', false) as is_declined
    from {{ ref('int_payment_attempts_unioned') }}
    where
        -- Stolen card numbers cannot be tested at a terminal.
        (payment_method_type = 'card' or (payment_method_type is null and card_fingerprint is not null))
        and {{ is_nearby if is_incremental() else 'true' }}

),

-- A card counts once, even if it is tried several times within minutes.
small_attempts as (

    select
        attempts.*,
        attempts.amount <= small_amounts.tiny_max_amount as is_tiny,
        attempts.card_fingerprint is not null
        and coalesce(
            lag(attempts.attempted_at) over (
                partition by
                    attempts.account_id,
                    attempts.livemode,
                    attempts.currency,
                    attempts.customer_key,
                    attempts.card_fingerprint
                order by attempts.attempted_at, attempts.attempt_id
            ) < attempts.attempted_at - interval '{{ minutes }} minutes',
            true
        ) as is_new_card
    from attempts
    inner join small_amounts
        on
            attempts.currency = small_amounts.currency
            and attempts.amount <= small_amounts.max_amount

),

counted as (

    select
        *,
        count(*) over nearby_attempts as attempt_count,
        sum(case when is_declined then 1 else 0 end) over nearby_attempts as declined_count,
        sum(case when is_new_card then 1 else 0 end) over nearby_attempts as card_count,
        sum(case when is_tiny and not is_declined then 1 else 0 end) over nearby_attempts as tiny_approved_count,
        -- A customer whose card is declined tries the next one in the same PaymentIntent.
        sum(case when is_tiny and is_new_card and attempt_number = 1 then 1 else 0 end) over nearest_attempts
            as tiny_card_count
    from small_attempts
    window
        nearby_attempts as (
            partition by account_id, livemode, currency, customer_key order by attempted_at
            range between interval '{{ checked_var("card_testing_window_minutes") }} minutes' preceding
            and interval '{{ checked_var("card_testing_window_minutes") }} minutes' following
        ),
        nearest_attempts as (
            partition by account_id, livemode, currency, customer_key order by attempted_at
            range between interval '{{ checked_var("card_testing_tiny_window_minutes") }} minutes' preceding
            and interval '{{ checked_var("card_testing_tiny_window_minutes") }} minutes' following
        )

),

flagged as (

    select
        account_id,
        livemode,
        attempt_id,
        payment_intent_id,
        customer_id,
        currency,
        (
            card_count >= {{ checked_var('card_testing_card_count') }}
            and declined_count >= attempt_count * {{ checked_var('card_testing_declined_share') }}
        )
        or (
            is_tiny
            and tiny_card_count >= {{ checked_var('card_testing_tiny_card_count') }}
            and tiny_approved_count = 0
        ) as is_card_testing,
        attempted_at,
        customer_key,
        bucket
    from counted

),

final as (

    select
        -- ids
        flagged.account_id,
        flagged.livemode,
        flagged.attempt_id,
        flagged.payment_intent_id,
        flagged.customer_id,

        -- strings
        flagged.currency,

        -- booleans
        flagged.is_card_testing,

        -- timestamps
        flagged.attempted_at,

        -- the load
        {{ build_id() }} as _load_id
    from flagged
    {% if is_incremental() %}
        inner join nearby_buckets
            on
                flagged.account_id = nearby_buckets.account_id
                and flagged.livemode = nearby_buckets.livemode
                and flagged.currency = nearby_buckets.currency
                and flagged.customer_key = nearby_buckets.customer_key
                and flagged.bucket = nearby_buckets.bucket
                and nearby_buckets.may_change
        -- Write a neighbouring attempt only if its flag changed: later models build again whatever belongs to a written
        -- row.
        left join {{ this }} as existing
            on
                flagged.account_id = existing.account_id
                and flagged.livemode = existing.livemode
                and flagged.attempt_id = existing.attempt_id
                and existing.attempted_at >= {{ oldest_nearby }}
        where
            existing.attempt_id is null
            or existing.is_card_testing <> flagged.is_card_testing
            or existing.attempted_at <> flagged.attempted_at
            or existing.payment_intent_id <> flagged.payment_intent_id
            or existing.currency <> flagged.currency
            or coalesce(existing.customer_id, '') <> flagged.customer_key
        -- Tombstones: flagged attempts that are gone, are no longer small, or are no longer of a card.
        union all by name
        select
            existing.account_id,
            existing.livemode,
            existing.attempt_id
        from {{ this }} as existing
        where
            {{ in_changed_payment_intents(this, models=['int_payment_attempts_unioned']) }}
            and not exists (
                select 1 from flagged
                where
                    flagged.account_id = existing.account_id
                    and flagged.livemode = existing.livemode
                    and flagged.attempt_id = existing.attempt_id
            )
    {% else %}
        {{ in_time_order('attempted_at') }}
    {% endif %}

)

select * from final
