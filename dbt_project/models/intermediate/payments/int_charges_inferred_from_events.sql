{#
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows.
#}
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

-- One row for each event that mentions a charge. The error names the charge that failed. `latest_charge` may
-- be an older charge, as after a failure without a charge. So it is used only for the event types below, whose events
-- are about it. A PaymentIntent with manual capture that was canceled without an error had been authorized.
-- `is_own_event` is false if the event happened later than the status that it shows.
charge_mentions as (

    select
        account_id,
        livemode,
        error_charge_id as charge_id,
        object_id as payment_intent_id,
        customer_id,
        error_payment_method_id as payment_method_id,
        'failed' as inferred_status,
        event_type = 'payment_intent.payment_failed' as is_own_event,
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
        end as inferred_status,
        event_type <> 'payment_intent.canceled' as is_own_event,
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
        ) as mention_rank,
        row_number() over (
            partition by account_id, livemode, charge_id, inferred_status
            order by
                case when is_own_event then 0 else 1 end,
                created_at,
                event_id
        ) as rank_within_status
    from charge_mentions

),

instants as (

    select
        account_id,
        livemode,
        charge_id,
        bool_or(inferred_status = 'failed') as has_failed,
        bool_or(inferred_status = 'authorized') as was_authorized,
        max(case when inferred_status = 'succeeded' then received_amount end) as received_amount,
        min(created_at) as first_mentioned_at,
        min(case when inferred_status = 'processing' then created_at end) as processing_at,
        min(case when inferred_status = 'authorized' and is_own_event then created_at end) as authorized_at,
        min(case when inferred_status = 'succeeded' then created_at end) as succeeded_at,
        min(case when inferred_status = 'failed' and is_own_event then created_at end) as failed_at
    from ranked
    group by account_id, livemode, charge_id

),

joined as (

    select
        instants.*,
        first_mentions.payment_intent_id,
        first_mentions.customer_id,
        first_mentions.payment_method_id,
        first_mentions.currency,
        first_mentions.amount,
        {% for column in error_columns %}
            first_failures.{{ column }},
        {% endfor %}
        case
            when instants.succeeded_at is not null then 'succeeded'
            when instants.has_failed then 'failed'
            when instants.was_authorized then 'succeeded'
            else 'pending'
        end as status
    from instants
    inner join ranked as first_mentions
        on
            instants.account_id = first_mentions.account_id
            and instants.livemode = first_mentions.livemode
            and instants.charge_id = first_mentions.charge_id
            and first_mentions.mention_rank = 1
    left join ranked as first_failures
        on
            instants.account_id = first_failures.account_id
            and instants.livemode = first_failures.livemode
            and instants.charge_id = first_failures.charge_id
            and first_failures.inferred_status = 'failed'
            and first_failures.rank_within_status = 1

),

refusal_classes as (

    select * from {{ ref('decline_codes') }}
    where stripe_refusal_class <> ''

),

-- The sign by which an error with this code shows that Stripe itself refused the charge (seed decline_codes).
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
        -- An error does not say who declined. Only a decline by the network has the network's code (SDK:
        -- PaymentIntent). Without that code, some error codes are Stripe's own, and others may be: the seed names the
        -- sign. An impossible card number or date is never sent to a network. Any other decline was most probably by
        -- the issuer, and a failed debit by the bank.
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
        -- The error of a card has a general code and the issuer's decline code. The error of a debit has only a code,
        -- which is the bank's reason.
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
        first_mentioned_at,
        processing_at,
        authorized_at,
        succeeded_at,
        failed_at,

        -- the load
        {{ build_id() }} as _load_id
    from refusals

)

select * from final
