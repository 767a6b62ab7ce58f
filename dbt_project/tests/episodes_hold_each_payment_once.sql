-- Each PaymentIntent is in exactly one episode. An episode is named after its first PaymentIntent, and its positions
-- are 1, 2, 3, … Each later PaymentIntent follows another one of the episode, by a link that their shared data allow.
{{ config(meta={'dagster': {'ref': {'name': 'payment_intents'}}}) }}

with payment_intents as (

    select * from {{ ref('payment_intents') }}
    where {{ is_untested() }}

),

counted as (

    select
        account_id,
        livemode,
        episode_id,
        count(*) as payment_intent_count,
        count(distinct payment_intent_id) as distinct_payment_intent_count,
        count(distinct episode_position) as distinct_position_count,
        max(episode_position) as last_position,
        count(predecessor_id) as link_count,
        min_by(payment_intent_id, episode_position) as first_payment_intent_id
    from payment_intents
    group by account_id, livemode, episode_id

)

select
    account_id,
    livemode,
    episode_id as payment_intent_id,
    'positions' as what
from counted
where
    payment_intent_count <> distinct_payment_intent_count
    or payment_intent_count <> last_position
    or payment_intent_count <> distinct_position_count
    or payment_intent_count <> link_count + 1
    or first_payment_intent_id <> episode_id
union all
select
    payment_intents.account_id,
    payment_intents.livemode,
    payment_intents.payment_intent_id,
    'link' as what
from payment_intents
left join payment_intents as predecessors
    on
        payment_intents.account_id = predecessors.account_id
        and payment_intents.livemode = predecessors.livemode
        and payment_intents.predecessor_id = predecessors.payment_intent_id
        and payment_intents.episode_id = predecessors.episode_id
        and payment_intents.currency = predecessors.currency
        and payment_intents.created_at > predecessors.created_at
where
    (payment_intents.predecessor_id is null) <> (payment_intents.link_tier is null)
    or (payment_intents.predecessor_id is not null and not coalesce(case payment_intents.link_tier
        when 'order'
            then payment_intents.order_key = predecessors.order_key and payment_intents.amount = predecessors.amount
        when 'order_part' then payment_intents.order_key = predecessors.order_key
        when 'card' then payment_intents.amount = predecessors.amount
        when 'customer'
            then
                payment_intents.customer_id = predecessors.customer_id
                and payment_intents.amount = predecessors.amount
    end, false))
