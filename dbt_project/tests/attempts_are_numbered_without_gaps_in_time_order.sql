-- 1, 2, 3, … for each payment, and none was made before the one that precedes it.
{{ config(meta={'dagster': {'ref': {'name': 'payment_attempts'}}}) }}

with numbered as (

    select
        account_id,
        livemode,
        payment_intent_id,
        attempt_id,
        attempt_number,
        attempted_at,
        lag(attempt_number, 1, 0) over of_payment as number_before,
        lag(attempted_at) over of_payment as attempted_before_at
    from {{ ref('payment_attempts') }}
    window of_payment as (partition by account_id, livemode, payment_intent_id order by attempt_number)

)

select
    account_id,
    livemode,
    payment_intent_id,
    attempt_id,
    attempt_number,
    number_before,
    attempted_at,
    attempted_before_at
from numbered
where attempt_number <> number_before + 1 or attempted_at < attempted_before_at
