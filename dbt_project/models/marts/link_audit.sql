{#
    Rows of one shape: `counted` of `out_of`, and their ratio. Everything is counted again in each build, so what grows
    with the account is limited: purchases to the last days, orders to a part of their values.
#}
{% set tiers = ['none', 'order', 'order_part', 'card', 'customer'] %}
{% set confidences = ['exact', 'high', 'medium', 'low'] %}
{% set weaker_tiers = {'order_part': "'card', 'customer'", 'card': "'customer'"} %}
{% set weaker_confidences = {
    'exact': "'high', 'medium', 'low'", 'high': "'medium', 'low'", 'medium': "'low'"
} %}
{% set coincidence_days = 90 %}
{% set all_values_up_to = 200000 %}
{% set one_value_in = 16 %}

with accounts as (

    select * from {{ ref('int_streams_pivoted') }}

),

links as (

    select
        account_id,
        livemode,
        payment_intent_id,
        episode_id,
        link_tier,
        link_confidence
    from {{ ref('payment_intents') }}
    where predecessor_id is not null

),

episodes as (

    select
        account_id,
        livemode,
        episode_id,
        link_tier,
        link_confidence,
        is_matured,
        recovery_status,
        recovery_status_strict
    from {{ ref('recovery_episodes') }}
    where is_in_scope

),

-- The weakest link of each recovered payment: the recovery rests on it.
recovered_links as (

    select
        links.*,
        row_number() over (
            partition by links.account_id, links.livemode, links.episode_id
            order by
                case
                    {% for confidence in confidences | reverse %}
                        when links.link_confidence = '{{ confidence }}' then {{ loop.index }}
                    {% endfor %}
                end,
                case
                    {% for tier in tiers | reverse %}
                        when links.link_tier = '{{ tier }}' then {{ loop.index }}
                    {% endfor %}
                end,
                links.payment_intent_id
        ) as weakness
    from links
    inner join episodes
        on
            links.account_id = episodes.account_id
            and links.livemode = episodes.livemode
            and links.episode_id = episodes.episode_id
    where episodes.recovery_status in ('recovered', 'recovered_late')

),

links_counted as (

    select
        links.account_id,
        links.livemode,
        links.link_tier,
        links.link_confidence,
        count(*) as link_count,
        count(recovered_links.payment_intent_id) as recovered_count
    from links
    left join recovered_links
        on
            links.account_id = recovered_links.account_id
            and links.livemode = recovered_links.livemode
            and links.payment_intent_id = recovered_links.payment_intent_id
            and recovered_links.weakness = 1
    group by links.account_id, links.livemode, links.link_tier, links.link_confidence

),

recovered_counted as (

    select
        account_id,
        livemode,
        count(*) as recovered_count
    from episodes
    where recovery_status in ('recovered', 'recovered_late')
    group by account_id, livemode

),

-- Values that are shared are few, and all of them are read. Hashes are evenly spread: of the others those that begin
-- with one digit stand for all.
orders as (

    select
        account_id,
        livemode,
        order_name,
        order_hash,
        bool_or(is_shared) as is_shared,
        count(distinct customer_id) as customer_count,
        sum(case when is_paid then 1 else 0 end) as success_count
    from {{ ref('int_orders_named') }}
    where
        is_shared
        or order_hash < (
            select case when count(*) > {{ all_values_up_to }} then '1' else '~' end
            from {{ ref('int_orders_named') }}
        )
    group by account_id, livemode, order_name, order_hash

),

orders_weighted as (

    select
        *,
        case
            when is_shared then 1
            else (
                select case when count(*) > {{ all_values_up_to }} then {{ one_value_in }} else 1 end
                from {{ ref('int_orders_named') }}
            )
        end as weight
    from orders

),

orders_counted as (

    select
        account_id,
        livemode,
        order_name,
        sum(weight) as value_count,
        sum(weight * customer_count) as customer_count,
        sum(weight * success_count) as success_count,
        sum(case when is_shared then 1 else 0 end) as shared_count
    from orders_weighted
    group by account_id, livemode, order_name

),

-- Equal purchases of a customer, or of a guest's card, in the days before the last gap that is over.
purchases as (

    select
        keyed.account_id,
        keyed.livemode,
        keyed.customer_id is null as is_guest,
        keyed.is_paid,
        keyed.started_at,
        lead(keyed.started_at) over (
            partition by coalesce(keyed.customer_price_hash, keyed.card_price_hash)
            order by keyed.started_at, keyed.payment_intent_id
        ) as next_started_at,
        accounts.data_through_at - interval '{{ checked_var("link_gap_days") }} days' as counted_until_at
    from {{ ref('int_payment_intents_keyed') }} as keyed
    inner join accounts
        on keyed.account_id = accounts.account_id and keyed.livemode = accounts.livemode
    where
        (keyed.customer_price_hash is not null or keyed.card_price_hash is not null)
        and keyed.started_at
        > accounts.data_through_at - interval '{{ checked_var("link_gap_days") + coincidence_days }} days'

),

purchases_counted as (

    select
        account_id,
        livemode,
        is_guest,
        count(*) as success_count,
        sum(case when next_started_at <= started_at + interval '1 day' then 1 else 0 end) as within_day_count,
        sum(
            case
                when
                    next_started_at <= started_at + case
                        when is_guest then interval '{{ checked_var("guest_link_gap_days") }} days'
                        else interval '{{ checked_var("link_gap_days") }} days'
                    end
                    then 1
                else 0
            end
        ) as within_gap_count
    from purchases
    where is_paid and started_at <= counted_until_at
    group by account_id, livemode, is_guest

),

rates_counted as (

    select
        account_id,
        livemode,
        count(*) as failed_count,
        {% for tier in tiers[2:] %}
            count(
                case
                    when
                        recovery_status_strict = 'recovered'
                        or (
                            recovery_status = 'recovered'
                            {{ 'and link_tier not in (' ~ weaker_tiers[tier] ~ ')' if tier in weaker_tiers }}
                        )
                        then 1
                end
            ) as up_to_{{ tier }},
        {% endfor %}
        {% for confidence in confidences %}
            count(
                case
                    when
                        recovery_status = 'recovered'
                        {% if confidence in weaker_confidences %}
                            and coalesce(link_confidence not in ({{ weaker_confidences[confidence] }}), true)
                        {% endif %}
                        then 1
                end
            ) as up_to_{{ confidence }},
        {% endfor %}
        count(case when recovery_status_strict = 'recovered' then 1 end) as up_to_strict
    from episodes
    where is_matured
    group by account_id, livemode

),

unioned as (

    select
        account_id,
        livemode,
        'links' as topic,
        link_tier as subject,
        link_confidence,
        'links' as measure,
        link_count as counted,
        sum(link_count) over (partition by account_id, livemode) as out_of
    from links_counted
    union all
    select
        links_counted.account_id,
        links_counted.livemode,
        'links' as topic,
        links_counted.link_tier as subject,
        links_counted.link_confidence,
        'recovered_episodes' as measure,
        links_counted.recovered_count as counted,
        coalesce(recovered_counted.recovered_count, 0) as out_of
    from links_counted
    left join recovered_counted
        on
            links_counted.account_id = recovered_counted.account_id
            and links_counted.livemode = recovered_counted.livemode
    {% for measure, column in {
        'customers_per_value': 'customer_count', 'successes_per_value': 'success_count', 'shared_values': 'shared_count'
    }.items() %}
        union all
        select
            account_id,
            livemode,
            'orders' as topic,
            order_name as subject,
            cast(null as varchar) as link_confidence,
            '{{ measure }}' as measure,
            {{ column }} as counted,
            value_count as out_of
        from orders_counted
    {% endfor %}
    {% for measure, column in {'within_a_day': 'within_day_count', 'within_the_gap': 'within_gap_count'}.items() %}
        union all
        select
            account_id,
            livemode,
            'next_purchases' as topic,
            case when is_guest then 'card' else 'customer' end as subject,
            cast(null as varchar) as link_confidence,
            '{{ measure }}' as measure,
            {{ column }} as counted,
            success_count as out_of
        from purchases_counted
    {% endfor %}
    {% for name in ['strict'] + tiers[2:] %}
        union all
        select
            account_id,
            livemode,
            'rates_by_tier' as topic,
            '{{ name }}' as subject,
            cast(null as varchar) as link_confidence,
            'recovered' as measure,
            up_to_{{ name }} as counted,
            failed_count as out_of
        from rates_counted
    {% endfor %}
    {% for confidence in confidences %}
        union all
        select
            account_id,
            livemode,
            'rates_by_confidence' as topic,
            'up_to' as subject,
            '{{ confidence }}' as link_confidence,
            'recovered' as measure,
            up_to_{{ confidence }} as counted,
            failed_count as out_of
        from rates_counted
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
