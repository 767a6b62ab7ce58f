{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{% set error_columns = [
    'api_version', 'error_code', 'error_decline_code', 'error_advice_code', 'error_network_advice_code',
    'error_network_decline_code',
    'payment_method_type', 'card_brand', 'card_funding', 'card_country', 'card_fingerprint', 'card_wallet',
    'bank_account_fingerprint', 'card_exp_month', 'card_exp_year'
] %}

with events as (

    select * from {{ ref('stg_stripe__events') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__events'), since='created_at') }}

),

-- What an event says of one charge. The error names the charge that failed. The latest charge is the one that an event
-- is about only where the event says so: after a failure without a charge it is an older one. What is canceled without
-- an error, and was to be captured by hand, was authorized.
tellings as (

    select
        account_id,
        livemode,
        error_charge_id as charge_id,
        object_id as payment_intent_id,
        customer_id,
        error_payment_method_id as payment_method_id,
        'failed' as told,
        event_type = 'payment_intent.payment_failed' as is_told_at_once,
        currency,
        amount,
        received_amount,
        {{ error_columns | join(', ') }},
        event_id,
        created_at
    from events
    where error_charge_id is not null
    union all
    select
        account_id,
        livemode,
        latest_charge_id as charge_id,
        object_id as payment_intent_id,
        customer_id,
        payment_method_id,
        case event_type
            when 'payment_intent.succeeded' then 'succeeded'
            when 'payment_intent.processing' then 'processing'
            else 'authorized'
        end as told,
        event_type <> 'payment_intent.canceled' as is_told_at_once,
        currency,
        amount,
        received_amount,
        {% for column in error_columns %}
            null as {{ column }},
        {% endfor %}
        event_id,
        created_at
    from events
    where
        latest_charge_id is not null
        and (
            event_type in (
                'payment_intent.succeeded', 'payment_intent.processing', 'payment_intent.amount_capturable_updated'
            )
            or (
                event_type = 'payment_intent.canceled'
                and {{ is_captured_by_hand('events', 'payment_method_type') }}
                and coalesce(error_type, error_code) is null
            )
        )

),

ranked as (

    select
        *,
        row_number() over (
            partition by account_id, livemode, charge_id order by created_at, event_id
        ) as telling_number,
        row_number() over (
            partition by account_id, livemode, charge_id, told
            order by
                case when is_told_at_once then 0 else 1 end,
                created_at,
                event_id
        ) as number_of_its_kind
    from tellings

),

instants as (

    select
        account_id,
        livemode,
        charge_id,
        bool_or(told = 'failed') as has_failed,
        bool_or(told = 'authorized') as was_authorized,
        max(case when told = 'succeeded' then received_amount end) as received_amount,
        min(created_at) as first_told_at,
        min(case when told = 'processing' then created_at end) as processing_at,
        min(case when told = 'authorized' and is_told_at_once then created_at end) as authorized_at,
        min(case when told = 'succeeded' then created_at end) as succeeded_at,
        min(case when told = 'failed' and is_told_at_once then created_at end) as failed_at
    from ranked
    group by account_id, livemode, charge_id

),

joined as (

    select
        instants.*,
        firsts.payment_intent_id,
        firsts.customer_id,
        firsts.payment_method_id,
        firsts.currency,
        firsts.amount,
        {% for column in error_columns %}
            failures.{{ column }},
        {% endfor %}
        case
            when instants.succeeded_at is not null then 'succeeded'
            when instants.has_failed then 'failed'
            when instants.was_authorized then 'succeeded'
            else 'pending'
        end as status
    from instants
    inner join ranked as firsts
        on
            instants.account_id = firsts.account_id
            and instants.livemode = firsts.livemode
            and instants.charge_id = firsts.charge_id
            and firsts.telling_number = 1
    left join ranked as failures
        on
            instants.account_id = failures.account_id
            and instants.livemode = failures.livemode
            and instants.charge_id = failures.charge_id
            and failures.told = 'failed'
            and failures.number_of_its_kind = 1

),

refusal_classes as (

    select * from {{ ref('decline_codes') }}
    where stripe_refusal_class <> ''

),

-- By what an error with these words shows that Stripe itself refused.
refusals as (

    select
        joined.*,
        coalesce(by_decline_code.stripe_refusal_sign, by_code.stripe_refusal_sign) as refusal_sign,
        coalesce(joined.payment_method_type, 'card') = 'card'
        and coalesce(joined.api_version >= '2024-12-18', true) as is_network_code_expected
    from joined
    left join refusal_classes as by_decline_code
        on joined.error_decline_code = by_decline_code.code
    left join refusal_classes as by_code
        on joined.error_code = by_code.code

),

final as (

    select
        -- ids
        account_id,
        livemode,
        charge_id,
        payment_intent_id,
        customer_id,
        payment_method_id,

        -- strings
        currency,
        status,
        -- An error does not tell who said no. Only a network's decline has the network's code (SDK: PaymentIntent).
        -- Without one, some words are Stripe's own, and others may be: the seed says by what sign. A number or date
        -- that cannot be is sent to no network. Any other decline was most probably the issuer's, and a debit's failure
        -- the bank's.
        case
            when status <> 'failed' then null
            when error_network_decline_code is not null then 'issuer_declined'
            when refusal_sign = 'code' then 'blocked'
            when
                refusal_sign = 'no_network_code'
                and is_network_code_expected
                and coalesce(error_advice_code, '') <> 'try_again_later'
                then 'blocked'
            when refusal_sign = 'advice' and is_network_code_expected and error_advice_code = 'do_not_try_again'
                then 'blocked'
            when error_code in ('incorrect_number', 'invalid_number', 'invalid_expiry_month', 'invalid_expiry_year')
                then 'invalid'
            when error_decline_code is not null or payment_method_type in {{ bank_debits() }} then 'issuer_declined'
            else 'invalid'
        end as presumed_outcome_type,
        -- A card's error has the general code and the issuer's word; a debit's has one code, the bank's reason.
        coalesce(error_decline_code, case when payment_method_type in {{ bank_debits() }} then error_code end)
            as presumed_outcome_reason,
        error_code as failure_code,
        error_advice_code as advice_code,
        error_network_advice_code as network_advice_code,
        error_network_decline_code as network_decline_code,
        payment_method_type,
        card_brand,
        card_funding,
        card_country,
        card_fingerprint,
        card_wallet,
        bank_account_fingerprint,

        -- numerics
        amount,
        coalesce(received_amount, 0) as captured_amount,
        card_exp_month,
        card_exp_year,

        -- booleans
        succeeded_at is not null as is_captured,

        -- timestamps
        first_told_at,
        processing_at,
        authorized_at,
        succeeded_at,
        failed_at,

        -- the load
        {{ build_id() }} as _load_id
    from refusals

)

select * from final
