{#
    Over 150 lines, since it names the fifty columns of a charge.
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

with charges as (

    select * from {{ ref('stg_stripe__charges') }}
    where
        payment_intent_id is not null
        and {{ in_changed_payment_intents(ref('stg_stripe__charges'), since='created_at') }}

),

inferred_charges as (

    select * from {{ ref('int_charges_inferred_from_events') }}
    where {{ in_changed_payment_intents(ref('int_charges_inferred_from_events')) }}

),

payment_intents as (

    select * from {{ ref('stg_stripe__payment_intents') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__payment_intents'), since='created_at') }}

),

returns as (

    select * from {{ ref('int_debit_returns') }}

),

events as (

    select * from {{ ref('stg_stripe__events') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__events'), since='created_at') }}

),

charge_events as (

    select
        account_id,
        livemode,
        object_id as charge_id,
        bool_or(event_type = 'charge.pending') as was_pending,
        min(case when event_type = 'charge.succeeded' then created_at end) as succeeded_at,
        min(case when event_type = 'charge.failed' then created_at end) as failed_at,
        min(case when event_type = 'charge.captured' then created_at end) as captured_at
    from events
    where event_type in ('charge.pending', 'charge.succeeded', 'charge.failed', 'charge.captured')
    group by account_id, livemode, object_id

),

-- A charge that has been read overrides anything inferred from events, except for the times of its outcome. Columns
-- that an inferred charge does not have are null.
unioned as (

    select
        charges.*,
        inferred_charges.processing_at,
        inferred_charges.authorized_at,
        inferred_charges.succeeded_at,
        inferred_charges.failed_at,
        'charge' as evidence
    from charges
    left join inferred_charges
        on
            charges.account_id = inferred_charges.account_id
            and charges.livemode = inferred_charges.livemode
            and charges.charge_id = inferred_charges.charge_id
    union all by name
    select
        * exclude (presumed_outcome_type, presumed_outcome_reason, first_mentioned_at),
        presumed_outcome_type as outcome_type,
        presumed_outcome_reason as outcome_reason,
        first_mentioned_at as created_at,
        'events' as evidence
    from inferred_charges
    where
        not exists (
            select 1 from charges
            where
                charges.account_id = inferred_charges.account_id
                and charges.livemode = inferred_charges.livemode
                and charges.charge_id = inferred_charges.charge_id
        )

),

final as (

    select
        -- ids
        charges.account_id,
        charges.livemode,
        charges.charge_id,
        charges.payment_intent_id,
        coalesce(charges.customer_id, payment_intents.customer_id) as customer_id,
        charges.payment_method_id,

        -- strings
        charges.evidence,
        coalesce(charges.currency, payment_intents.currency) as currency,
        charges.status,
        charges.failure_code,
        charges.outcome_type,
        charges.outcome_reason,
        charges.outcome_rule,
        charges.network_status,
        charges.advice_code,
        charges.network_advice_code,
        charges.network_decline_code,
        charges.risk_level,
        charges.payment_method_type,
        charges.card_brand,
        charges.card_funding,
        charges.card_country,
        charges.card_fingerprint,
        charges.card_network,
        charges.card_wallet,
        charges.card_cvc_check,
        charges.card_postal_code_check,
        charges.three_d_secure_result,
        charges.three_d_secure_result_reason,
        charges.three_d_secure_flow,
        charges.bank_account_fingerprint,
        returns.return_reason,

        -- numerics
        coalesce(charges.amount, payment_intents.amount) as amount,
        charges.captured_amount,
        charges.card_exp_month,
        charges.card_exp_year,

        -- booleans
        charges.is_captured,
        {{ is_captured_by_hand('payment_intents', 'charges.payment_method_type') }} as is_captured_by_hand,
        -- A success event does not name the payment method. A charge that was in processing before counts as a debit.
        coalesce(
            charges.payment_method_type in {{ bank_debits() }}, charges.processing_at is not null
        ) as is_bank_debit,
        coalesce(charges.payment_method_type in (
            'ach_credit_transfer', 'boleto', 'customer_balance', 'konbini', 'multibanco', 'oxxo',
            'sepa_credit_transfer', 'sofort'
        ), false)
        or coalesce(charge_events.was_pending, false)
        or charges.processing_at is not null as is_other_delayed_method,

        -- timestamps
        charges.created_at,
        charges.processing_at,
        charges.authorized_at,
        coalesce(charge_events.succeeded_at, charges.succeeded_at) as succeeded_at,
        coalesce(charge_events.failed_at, charges.failed_at) as failed_at,
        coalesce(
            charge_events.captured_at, case when is_captured_by_hand then charges.succeeded_at end
        ) as captured_at,
        returns.returned_at,

        -- the load
        {{ build_id() }} as _load_id
    from unioned as charges
    left join payment_intents
        on
            charges.account_id = payment_intents.account_id
            and charges.livemode = payment_intents.livemode
            and charges.payment_intent_id = payment_intents.payment_intent_id
    left join charge_events
        on
            charges.account_id = charge_events.account_id
            and charges.livemode = charge_events.livemode
            and charges.charge_id = charge_events.charge_id
    left join returns
        on
            charges.account_id = returns.account_id
            and charges.livemode = returns.livemode
            and charges.charge_id = returns.charge_id
    {{ in_time_order('charges.created_at') }}

)

select * from final
