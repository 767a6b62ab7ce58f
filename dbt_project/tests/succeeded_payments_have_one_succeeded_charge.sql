-- A PaymentIntent has succeeded exactly if one of its charges has, and it has received the captured amount. Exceptions
-- are returned debits, and successes whose charge is unknown. A warning only: the two tables may be moments apart, and
-- the next sync corrects that.
{{ config(severity='warn', meta={'dagster': {'ref': {'name': 'payment_intents'}}}) }}

with payment_intents as (

    select * from {{ ref('payment_intents') }}
    where {{ is_untested() }}

),

attempts as (

    select
        account_id,
        livemode,
        payment_intent_id,
        count(*) filter (where outcome = 'succeeded') as succeeded_count,
        count(*) filter (where is_returned) as returned_count,
        sum(captured_amount) filter (where outcome = 'succeeded' or is_returned) as captured_amount
    from {{ ref('payment_attempts') }}
    where
        (account_id, livemode, payment_intent_id) in (
            select
                payment_intents.account_id,
                payment_intents.livemode,
                payment_intents.payment_intent_id
            from payment_intents
        )
    group by account_id, livemode, payment_intent_id

)

select
    payment_intents.account_id,
    payment_intents.livemode,
    payment_intents.payment_intent_id,
    payment_intents.status,
    payment_intents.received_amount,
    attempts.succeeded_count,
    attempts.returned_count,
    attempts.captured_amount
from payment_intents
left join attempts
    on
        payment_intents.account_id = attempts.account_id
        and payment_intents.livemode = attempts.livemode
        and payment_intents.payment_intent_id = attempts.payment_intent_id
where
    not payment_intents.is_succeeded_without_charge
    and (
        coalesce(attempts.succeeded_count, 0) + coalesce(attempts.returned_count, 0)
        <> case when payment_intents.status = 'succeeded' then 1 else 0 end
        or (payment_intents.status = 'succeeded' and payment_intents.received_amount <> attempts.captured_amount)
    )
