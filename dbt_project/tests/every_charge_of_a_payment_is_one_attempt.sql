-- Each charge of a PaymentIntent is exactly one attempt. Once a charge has been read, the attempt that was inferred
-- from events is gone.
{{ config(meta={'dagster': {'ref': {'name': 'payment_attempts'}}}) }}

with touched as (

    select
        account_id,
        livemode,
        payment_intent_id
    from {{ ref('stg_stripe__charges') }}
    where payment_intent_id is not null and {{ is_untested() }}
    union
    select
        account_id,
        livemode,
        payment_intent_id
    from {{ ref('payment_attempts') }}
    where {{ is_untested() }}

),

charges as (

    select
        account_id,
        livemode,
        charge_id,
        count(*) as charge_count
    from {{ ref('stg_stripe__charges') }}
    where (account_id, livemode, payment_intent_id) in (select touched.* from touched)
    group by account_id, livemode, charge_id

),

attempts as (

    select
        account_id,
        livemode,
        charge_id,
        count(*) as attempt_count
    from {{ ref('payment_attempts') }}
    where is_charge_known and (account_id, livemode, payment_intent_id) in (select touched.* from touched)
    group by account_id, livemode, charge_id

)

select
    coalesce(charges.account_id, attempts.account_id) as account_id,
    coalesce(charges.charge_id, attempts.charge_id) as charge_id,
    charges.charge_count,
    attempts.attempt_count
from charges
full outer join attempts
    on
        charges.account_id = attempts.account_id
        and charges.livemode = attempts.livemode
        and charges.charge_id = attempts.charge_id
where charges.charge_count is distinct from 1 or attempts.attempt_count is distinct from 1
