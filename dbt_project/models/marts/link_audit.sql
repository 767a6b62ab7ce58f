{#
    Each part of the audit is a common table expression with one column for each measure. The last loop turns all parts
    into rows of one shape: `counted` of `out_of`, and their ratio. Each build counts everything again, so two parts are
    limited: purchases to the last days, and orders of large accounts to a sample of their values.
#}
{% set tiers = ['order', 'order_part', 'card', 'customer'] %}
{% set confidences = ['exact', 'high', 'medium', 'low'] %}
{% set coincidence_days = 90 %}
{% set all_values_up_to = 200000 %}
{% set one_value_in = 16 %}
{% set minute, visit = 60, 6 * 3600 %}

{% set by_kind = 'account_id, livemode, link_tier, link_confidence' %}
{% set per_account = 'over (partition by account_id, livemode)' %}
{% set is_recovered = "recovery_status in ('recovered', 'recovered_late')" %}

{# For each part of the audit: its topic, and for each measure the columns of the numerator and of the denominator. #}
{% set audit_parts = {
    'links_by_kind': ('links', {'links': ('links', 'all_links')}),
    'episodes_by_weakest_link': ('links', {
        'episodes': ('episodes', 'all_episodes'),
        'recovered_episodes': ('recovered_episodes', 'all_recovered_episodes'),
        'out_of_scope_episodes': ('out_of_scope_episodes', 'all_out_of_scope_episodes')
    }),
    'order_reliability': ('orders', {
        'customers_per_value': ('customers', 'order_values'),
        'successes_per_value': ('successes', 'order_values'),
        'shared_values': ('shared_values', 'order_values')
    }),
    'next_purchase_gaps': ('next_purchases', {
        'within_a_day': ('within_a_day', 'successes'),
        'within_a_day_in_doubt': ('within_a_day_in_doubt', 'successes'),
        'within_the_gap': ('within_the_gap', 'successes'),
        'within_the_gap_in_doubt': ('within_the_gap_in_doubt', 'successes')
    }),
    'rates_up_to_tier': ('rates_by_tier', {'recovered': ('recovered', 'failed')}),
    'rates_up_to_confidence': ('rates_by_confidence', {'recovered': ('recovered', 'failed')})
} %}

with accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

episodes as (

    select
        *,
        coalesce(list_position({{ tiers }}, link_tier), 0) as tier_rank,
        coalesce(list_position({{ confidences }}, link_confidence), 0) as confidence_rank
    from {{ ref('recovery_episodes') }}

),

links_by_kind as (

    select
        {{ by_kind }},
        link_tier as subject,
        count(*) as links,
        sum(count(*)) {{ per_account }} as all_links
    from {{ ref('payment_intents') }}
    where predecessor_id is not null
    group by {{ by_kind }}

),

-- An episode has the tier and confidence of its weakest link; an episode of one PaymentIntent has no link.
episodes_by_kind as (

    select
        {{ by_kind }},
        count(case when is_in_scope then 1 end) as episodes,
        count(case when is_in_scope and {{ is_recovered }} then 1 end) as recovered_episodes,
        count(case when not is_in_scope then 1 end) as out_of_scope_episodes
    from episodes
    group by {{ by_kind }}

),

episodes_by_weakest_link as (

    select
        *,
        link_tier as subject,
        sum(episodes) {{ per_account }} as all_episodes,
        sum(recovered_episodes) {{ per_account }} as all_recovered_episodes,
        sum(out_of_scope_episodes) {{ per_account }} as all_out_of_scope_episodes
    from episodes_by_kind

),

-- If many PaymentIntents name an order, sample the values whose hash begins with 0: hashes are evenly spread. Shared
-- values are few, so all of them are read.
sampling as (

    select
        case when count(*) > {{ all_values_up_to }} then '1' else '~' end as hash_limit,
        case when count(*) > {{ all_values_up_to }} then {{ one_value_in }} else 1 end as weight
    from {{ ref('int_orders_named') }}

),

order_values as (

    select
        account_id,
        livemode,
        order_name,
        bool_or(is_shared) as is_shared,
        case when bool_or(is_shared) then 1 else (select sampling.weight from sampling) end as weight,
        count(distinct customer_id) as customer_count,
        count(case when is_paid then 1 end) as success_count
    from {{ ref('int_orders_named') }}
    where is_shared or order_hash < (select sampling.hash_limit from sampling)
    group by account_id, livemode, order_name, order_hash

),

order_reliability as (

    select
        account_id,
        livemode,
        order_name as subject,
        cast(null as varchar) as link_confidence,
        sum(weight) as order_values,
        sum(weight * customer_count) as customers,
        sum(weight * success_count) as successes,
        count(case when is_shared then 1 end) as shared_values
    from order_values
    group by account_id, livemode, order_name

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

-- How often each payer buys, as in the macro link_retries: known from three gaps of six hours or more.
habits as (

    select
        payer_hash,
        count(case when seconds_to_next >= {{ visit }} then 1 end) as gap_count,
        median(case when seconds_to_next >= {{ visit }} then seconds_to_next end) as interval_seconds,
        mad(case when seconds_to_next >= {{ visit }} then seconds_to_next end) as spread_seconds,
        count(case when seconds_to_next <= {{ minute }} then 1 end) as equal_count
    from purchases
    where is_paid and seconds_to_next is not null
    group by payer_hash

),

-- When a retry could begin if the purchase had failed: after the pause, and until the payer's next purchase is due. Two
-- purchases within a minute, seen twice, indicate equal subscriptions. The pause is then one minute.
retry_times as (

    select
        *,
        case
            when equal_count >= 2 then {{ [minute, checked_var('link_pause_seconds')] | max }}
            else {{ checked_var('link_pause_seconds') }}
        end as pause_seconds,
        spread_seconds <= interval_seconds / 8.0 as is_regular,
        interval_seconds - least(
            greatest(interval_seconds / case when gap_count >= 4 then 24.0 else 12.0 end, 3 * spread_seconds),
            interval_seconds / 4.0
        ) as due_seconds
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
            when retry_times.gap_count < 3 then true
            when retry_times.is_regular then purchases.seconds_to_next < retry_times.due_seconds
            else purchases.is_guest or purchases.seconds_to_next <= retry_times.interval_seconds / 8.0
        end as is_in_doubt
    from purchases
    left join retry_times on purchases.payer_hash = retry_times.payer_hash
    where purchases.is_paid and purchases.is_gap_over

),

next_purchase_gaps as (

    select
        account_id,
        livemode,
        case when is_guest then 'card' else 'customer' end as subject,
        cast(null as varchar) as link_confidence,
        count(*) as successes,
        count(case when seconds_to_next <= 86400 then 1 end) as within_a_day,
        count(case when seconds_to_next <= 86400 and is_in_doubt then 1 end) as within_a_day_in_doubt,
        count(case when seconds_to_next <= gap_seconds then 1 end) as within_the_gap,
        count(case when seconds_to_next <= gap_seconds and is_in_doubt then 1 end) as within_the_gap_in_doubt
    from next_purchases
    group by account_id, livemode, is_guest

),

rates_up_to_tier as (

    select
        episodes.account_id,
        episodes.livemode,
        up_to.subject,
        cast(null as varchar) as link_confidence,
        count(*) as failed,
        count(
            case
                when
                    episodes.recovery_status_strict = 'recovered'
                    or (episodes.recovery_status = 'recovered' and episodes.tier_rank <= up_to.tier_rank)
                    then 1
            end
        ) as recovered
    from episodes
    cross join (values ('strict', -1), {% for tier in tiers[1:] -%}
        ('{{ tier }}', {{ loop.index + 1 }}){{ ', ' if not loop.last }}
    {%- endfor %}) as up_to (subject, tier_rank)
    where episodes.is_in_scope and episodes.is_matured
    group by episodes.account_id, episodes.livemode, up_to.subject

),

rates_up_to_confidence as (

    select
        episodes.account_id,
        episodes.livemode,
        'up_to' as subject,
        up_to.link_confidence,
        count(*) as failed,
        count(
            case
                when episodes.recovery_status = 'recovered' and episodes.confidence_rank <= up_to.confidence_rank then 1
            end
        ) as recovered
    from episodes
    cross join (values {% for confidence in confidences -%}
        ('{{ confidence }}', {{ loop.index }}){{ ', ' if not loop.last }}
    {%- endfor %}) as up_to (link_confidence, confidence_rank)
    where episodes.is_in_scope and episodes.is_matured
    group by episodes.account_id, episodes.livemode, up_to.link_confidence

),

unioned as (

    {% for cte, (topic, measures) in audit_parts.items() %}
        {% set is_last_cte = loop.last %}
        {% for measure, (part, whole) in measures.items() %}
            select
                account_id,
                livemode,
                '{{ topic }}' as topic,
                subject,
                link_confidence,
                '{{ measure }}' as measure,
                {{ part }} as counted,
                {{ whole }} as out_of
            from {{ cte }}
            {{ 'union all' if not (loop.last and is_last_cte) }}
        {% endfor %}
    {% endfor %}

),

final as (

    select
        -- ids
        account_id,
        livemode,

        -- strings
        topic,
        subject,
        link_confidence,
        measure,

        -- numerics
        cast(counted as bigint) as counted,
        cast(out_of as bigint) as out_of,
        counted / nullif(cast(out_of as double), 0) as ratio
    from unioned

)

select * from final
