-- Each PaymentIntent is in one episode, which is called after a PaymentIntent of its own and is of one account, mode,
-- currency and tier; its positions are 1, 2, 3, … Several of them share an order, a customer or an instrument.
{{ config(meta={'dagster': {'ref': {'name': 'payment_intents'}}}) }}

select
    account_id,
    livemode,
    episode_id,
    count(*) as payment_intent_count,
    count(distinct payment_intent_id) as distinct_payment_intent_count,
    count(distinct currency) as currency_count,
    count(distinct link_tier) as tier_count,
    count(distinct order_key) as order_count,
    max(episode_position) as last_position,
    min_by(payment_intent_id, episode_position) as first_payment_intent_id
from {{ ref('payment_intents') }}
where {{ is_untested() }}
group by account_id, livemode, episode_id
having
    count(*) <> count(distinct payment_intent_id)
    or count(*) <> max(episode_position)
    or count(*) <> count(distinct episode_position)
    or min_by(payment_intent_id, episode_position) <> episode_id
    or count(distinct currency) > 1
    or count(distinct link_tier) > 1
    or (min(link_tier) = 'explicit' and count(distinct order_key) <> 1)
    or (min(link_tier) = 'customer_amount' and (count(distinct customer_id) <> 1 or count(distinct amount) <> 1))
    or (min(link_tier) = 'instrument_amount' and count(distinct amount) <> 1)
    or (min(link_tier) = 'none' and count(*) <> 1)
