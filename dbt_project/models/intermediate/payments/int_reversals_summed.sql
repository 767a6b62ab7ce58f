{#
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows. The key is not unique: a PaymentIntent has a row for
    each currency, which a build replaces together.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

with charges as (

    select * from {{ ref('int_charges_resolved') }}
    where {{ in_changed_payment_intents(ref('int_charges_resolved'), since='attempted_at') }}

),

refunds as (

    select * from {{ ref('stg_stripe__refunds') }}

),

disputes as (

    select * from {{ ref('stg_stripe__disputes') }}

),

reversals as (

    select
        account_id,
        livemode,
        charge_id,
        payment_intent_id,
        currency,
        balance_transaction_id is not null as has_moved_money,
        case when status = 'succeeded' then amount else 0 end as refunded_amount,
        0 as disputed_amount,
        0 as lost_dispute_amount,
        created_at
    from refunds
    union all
    select
        account_id,
        livemode,
        charge_id,
        payment_intent_id,
        currency,
        true as has_moved_money,
        0 as refunded_amount,
        amount as disputed_amount,
        case when status = 'lost' then amount else 0 end as lost_dispute_amount,
        created_at
    from disputes

),

-- Older API versions name only the charge of a refund. Stripe also lists the release of an uncaptured authorization as
-- a refund. It counts as 0 here, since no money has moved.
attributed as (

    select
        reversals.account_id,
        reversals.livemode,
        reversals.currency,
        reversals.disputed_amount,
        reversals.lost_dispute_amount,
        reversals.created_at,
        coalesce(reversals.payment_intent_id, charges.payment_intent_id) as payment_intent_id,
        case
            when
                not reversals.has_moved_money
                and charges.captured_amount < charges.amount
                -- Ignore a charge of another payment. As a join condition, this would make DuckDB compare every pair.
                and coalesce(reversals.payment_intent_id = charges.payment_intent_id, true)
                then 0
            else reversals.refunded_amount
        end as refunded_amount
    from reversals
    left join charges
        on
            reversals.account_id = charges.account_id
            and reversals.livemode = charges.livemode
            and reversals.charge_id = charges.charge_id

),

final as (

    select
        account_id,
        livemode,
        payment_intent_id,
        currency,
        cast(sum(refunded_amount) as bigint) as refunded_amount,
        cast(sum(disputed_amount) as bigint) as disputed_amount,
        cast(sum(lost_dispute_amount) as bigint) as lost_dispute_amount,
        max(created_at) filter (where refunded_amount > 0 or lost_dispute_amount > 0) as last_reversed_at,
        {{ build_id() }} as _load_id
    from attributed
    where payment_intent_id is not null and {{ is_about_changed_payment_intents() }}
    group by account_id, livemode, payment_intent_id, currency

)

select * from final
