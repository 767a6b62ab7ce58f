-- The marts have as many charges of PaymentIntents, and as many PaymentIntents, as were read. This test counts all
-- rows, also those that no recent build has written. A missing row was deleted by hand; --full-refresh restores it.
{{ config(meta={'dagster': {'ref': {'name': 'payment_attempts'}}}) }}

with counts as (

    select
        'charges' as what,
        (
            select count(*) from {{ ref('stg_stripe__charges') }}
            where payment_intent_id is not null
        ) as read_count,
        (
            select count(*) from {{ ref('payment_attempts') }}
            where is_charge_known
        ) as mart_count
    union all
    select
        'payment intents' as what,
        (select count(*) from {{ ref('stg_stripe__payment_intents') }}) as read_count,
        (select count(*) from {{ ref('payment_intents') }}) as mart_count

)

select *
from counts
where read_count <> mart_count
