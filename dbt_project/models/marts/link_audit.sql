{#
    More than 150 lines, since its six parts share one shape.

    Each part of the audit is a common table expression with one column for each measure. The last loop turns all parts
    into rows of one shape: `counted` of `out_of`, and their ratio.
#}
{% set tiers = ['order', 'order_part', 'card', 'customer'] %}
{% set confidences = ['exact', 'high', 'medium', 'low'] %}

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

with episodes as (

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

order_reliability as (

    select
        *,
        order_name as subject,
        cast(null as varchar) as link_confidence
    from {{ ref('int_orders_counted') }}

),

next_purchase_gaps as (

    select
        *,
        payer as subject,
        cast(null as varchar) as link_confidence
    from {{ ref('int_next_purchases_counted') }}

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
