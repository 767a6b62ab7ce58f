{#
    Incremental: a build writes all PaymentIntents of each episode, past or present, in which a PaymentIntent, a link or
    a card-testing flag has changed.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'measured': ['created_at', 'started_at']}
) }}

{% set tiers = {
    'order': 'int_retries_linked_by_order',
    'card': 'int_retries_linked_by_card',
    'customer': 'int_retries_linked_by_customer',
    'order_part': 'int_order_parts_linked'
} %}
{# A change of a card-testing flag changes link_confidence, so it rebuilds the episode. #}
{% set changed = ['int_payment_intents_keyed', 'int_card_tests_flagged'] + tiers.values() | list %}
{# Declares the dependency: dbt does not see a reference inside a condition. #}
{% set flagged = ref('int_card_tests_flagged') %}
{% set key = 'account_id, livemode, payment_intent_id' %}
{% set is_in_changed_episode = '(' ~ key ~ ') in (select ' ~ key ~ ' from changed_episodes)' %}

with {% if is_incremental() %}
    changed as (

        {% for model in changed %}
            select {{ key }} from {{ ref(model) }}
            where {{ is_new_since_last_build() }}
            union
        {% endfor %}
        {% for model in tiers.values() %}
            select
                account_id,
                livemode,
                predecessor_id as payment_intent_id
            from {{ ref(model) }}
            where predecessor_id is not null and {{ is_new_since_last_build() }}
            {{ 'union' if not loop.last }}
        {% endfor %}

    ),

    -- All PaymentIntents that share an episode with a changed one, now or in the last build.
    changed_episodes as (

        select {{ key }} from changed
        union
        select {{ key }} from {{ this }}
        where (account_id, livemode, episode_id) in (
            select
                account_id,
                livemode,
                episode_id
            from {{ this }}
            where {{ by_rowid(this, '(' ~ key ~ ') in (select ' ~ key ~ ' from changed)') }}
        )

    ),
{% endif %}

payment_intents as (

    select * from {{ ref('int_payment_intents_keyed') }}
    {% if is_incremental() %}
        where {{ by_rowid(
            ref('int_payment_intents_keyed'), '(' ~ key ~ ') in (select ' ~ key ~ ' from changed_episodes)'
        ) }}
    {% endif %}

),

links as (

    {% for tier, model in tiers.items() %}
        select
            {{ key }},
            predecessor_id,
            '{{ tier }}' as link_tier,
            {% if tier in ('card', 'customer') %}
                case when is_regular then gap_count else 0 end as gap_count,
            {% else %}
                0 as gap_count,
            {% endif %}
            {{ 'has_equals' if tier != 'order_part' else 'false as has_equals' }}
        from {{ ref(model) }}
        where predecessor_id is not null and {{ is_in_changed_episode if is_incremental() else 'true' }}
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

card_tests as (

    select distinct {{ key }} from {{ flagged }}
    where is_card_testing and {{ by_rowid(flagged, is_in_changed_episode) if is_incremental() else 'true' }}

),

-- Each step doubles the distance: six of them find the first of 64 payments that follow one another.
ancestors_0 as {{ materialized() }} (

    select
        {{ key }},
        predecessor_id as ancestor_id
    from links

),

{% for step in range(1, 7) %}
    ancestors_{{ step }} as {{ materialized() }} (

        select
            nearer.account_id,
            nearer.livemode,
            nearer.payment_intent_id,
            coalesce(farther.ancestor_id, nearer.ancestor_id) as ancestor_id
        from ancestors_{{ step - 1 }} as nearer
        left join ancestors_{{ step - 1 }} as farther
            on
                nearer.account_id = farther.account_id
                and nearer.livemode = farther.livemode
                and nearer.ancestor_id = farther.payment_intent_id

    ),
{% endfor %}

-- Each PaymentIntent of a chain with the first of that chain. Most PaymentIntents are in no chain and need no sorting.
chains as (

    select
        {{ key }},
        ancestor_id as chain_id
    from ancestors_6
    union all
    select distinct
        account_id,
        livemode,
        ancestor_id as payment_intent_id,
        ancestor_id as chain_id
    from ancestors_6 as heads
    where
        not exists (
            select 1 from ancestors_6 as followers
            where
                followers.account_id = heads.account_id
                and followers.livemode = heads.livemode
                and followers.payment_intent_id = heads.ancestor_id
        )

),

joined as (

    select
        payment_intents.account_id,
        payment_intents.livemode,
        payment_intents.payment_intent_id,
        payment_intents.customer_id,
        payment_intents.started_at,
        links.predecessor_id,
        links.link_tier,
        links.gap_count,
        links.has_equals,
        card_tests.payment_intent_id is not null as is_card_testing,
        date_diff('second', predecessors.ended_at, payment_intents.started_at) as seconds_since_predecessor,
        chains.chain_id
    from payment_intents
    inner join chains
        on
            payment_intents.account_id = chains.account_id
            and payment_intents.livemode = chains.livemode
            and payment_intents.payment_intent_id = chains.payment_intent_id
    left join links
        on
            payment_intents.account_id = links.account_id
            and payment_intents.livemode = links.livemode
            and payment_intents.payment_intent_id = links.payment_intent_id
    left join payment_intents as predecessors
        on
            links.account_id = predecessors.account_id
            and links.livemode = predecessors.livemode
            and links.predecessor_id = predecessors.payment_intent_id
    left join card_tests
        on
            payment_intents.account_id = card_tests.account_id
            and payment_intents.livemode = card_tests.livemode
            and payment_intents.payment_intent_id = card_tests.payment_intent_id

),

-- Without an order or a known interval, retries must not extend a debt until next month's payment is due. Such a debt
-- ends link_span_days after it began, and later PaymentIntents are another debt.
spans as (

    select
        *,
        case
            when bool_or(link_tier in ('order', 'order_part') or gap_count >= 3) over in_chain then 0
            else
                date_diff('second', min(started_at) over in_chain, started_at)
                // {{ checked_var('link_span_days') * 86400 }}
        end as span_number
    from joined
    window in_chain as (partition by account_id, livemode, chain_id)

),

episodes as (

    select
        *,
        first_value(payment_intent_id) over (
            partition by account_id, livemode, chain_id, span_number
            order by case when payment_intent_id = chain_id then 0 else 1 end, started_at, payment_intent_id
        ) as episode_id
    from spans

),

positioned as (

    select
        {{ key }},
        episode_id,
        case when payment_intent_id <> episode_id then predecessor_id end as predecessor_id,
        case when payment_intent_id <> episode_id then link_tier end as link_tier,
        case when payment_intent_id <> episode_id then {{ link_confidence() }} end as link_confidence,
        row_number() over (
            partition by account_id, livemode, episode_id
            order by case when payment_intent_id = episode_id then 0 else 1 end, started_at, payment_intent_id
        ) as episode_position
    from episodes

),

final as (

    select
        -- ids
        payment_intents.account_id,
        payment_intents.livemode,
        payment_intents.payment_intent_id,
        coalesce(positioned.episode_id, payment_intents.payment_intent_id) as episode_id,
        positioned.predecessor_id,

        -- strings
        payment_intents.currency,
        payment_intents.order_key,
        positioned.link_tier,
        positioned.link_confidence,

        -- numerics
        coalesce(positioned.episode_position, 1) as episode_position,

        -- timestamps
        payment_intents.created_at,
        payment_intents.started_at,

        -- the load
        {{ build_id() }} as _load_id
    from payment_intents
    left join positioned
        on
            payment_intents.account_id = positioned.account_id
            and payment_intents.livemode = positioned.livemode
            and payment_intents.payment_intent_id = positioned.payment_intent_id

)

select * from final
