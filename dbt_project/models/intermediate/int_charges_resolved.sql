{#
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{% set shared_columns = [
    'account_id', 'livemode', 'charge_id', 'payment_intent_id', 'customer_id', 'payment_method_id', 'currency',
    'status', 'failure_code', 'advice_code', 'network_advice_code', 'network_decline_code', 'payment_method_type',
    'card_brand', 'card_funding', 'card_country', 'card_fingerprint', 'card_wallet', 'bank_account_fingerprint',
    'amount', 'captured_amount', 'card_exp_month', 'card_exp_year', 'is_captured'
] | join(', ') %}

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

disputes as (

    select * from {{ ref('stg_stripe__disputes') }}

),

events as (

    select * from {{ ref('stg_stripe__events') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__events'), since='created_at') }}

),

refusal_classes as (

    select * from {{ ref('decline_codes') }}
    where stripe_refusal_class <> ''

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

returns as (

    select
        account_id,
        livemode,
        charge_id,
        reason,
        created_at as returned_at,
        row_number() over (
            partition by account_id, livemode, charge_id order by created_at, dispute_id
        ) as return_number
    from disputes
    where
        -- Dispute reasons (Stripe SDK) with which a bank returns a debit. All other reasons are complaints by the
        -- payer.
        reason in (
            'bank_cannot_process', 'check_returned', 'debit_not_authorized', 'incorrect_account_details',
            'insufficient_funds'
        )
        and status is distinct from 'won'

),

-- A charge that has been read overrides anything inferred from events.
all_charges as (

    select
        {{ shared_columns }},
        outcome_type,
        outcome_type as presumed_outcome_type,
        outcome_reason,
        outcome_reason as presumed_outcome_reason,
        outcome_rule,
        network_status,
        risk_level,
        card_network,
        card_cvc_check,
        card_postal_code_check,
        three_d_secure_result,
        three_d_secure_result_reason,
        three_d_secure_flow,
        true as is_charge_known,
        created_at
    from charges
    union all
    select
        {{ shared_columns }},
        null as outcome_type,
        presumed_outcome_type,
        null as outcome_reason,
        presumed_outcome_reason,
        null as outcome_rule,
        null as network_status,
        null as risk_level,
        null as card_network,
        null as card_cvc_check,
        null as card_postal_code_check,
        null as three_d_secure_result,
        null as three_d_secure_result_reason,
        null as three_d_secure_flow,
        false as is_charge_known,
        first_mentioned_at as created_at
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

joined as (

    select
        charges.*,
        inferred_charges.processing_at,
        inferred_charges.authorized_at,
        coalesce(charge_events.succeeded_at, inferred_charges.succeeded_at) as succeeded_at,
        coalesce(charge_events.failed_at, inferred_charges.failed_at) as failed_at,
        coalesce(
            charge_events.captured_at,
            case
                when {{ is_captured_by_hand('payment_intents', 'charges.payment_method_type') }}
                    then inferred_charges.succeeded_at
            end
        ) as captured_at,
        returns.reason as return_reason,
        returns.returned_at,
        coalesce(charges.amount, payment_intents.amount) as attempted_amount,
        coalesce(charges.currency, payment_intents.currency) as attempted_currency,
        coalesce(charges.customer_id, payment_intents.customer_id) as paying_customer_id,
        {{ is_captured_by_hand('payment_intents', 'charges.payment_method_type') }} as is_captured_by_hand,
        by_reason.stripe_refusal_class as reason_class,
        by_code.stripe_refusal_class as code_class,
        -- A success event does not name the payment method. A charge that was in processing before counts as a debit.
        coalesce(
            charges.payment_method_type in {{ bank_debits() }}, inferred_charges.processing_at is not null
        ) as is_bank_debit,
        coalesce(charges.payment_method_type in (
            'ach_credit_transfer', 'boleto', 'customer_balance', 'konbini', 'multibanco', 'oxxo',
            'sepa_credit_transfer', 'sofort'
        ), false)
        or coalesce(charge_events.was_pending, false)
        or inferred_charges.processing_at is not null as is_other_delayed_method
    from all_charges as charges
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
    left join inferred_charges
        on
            charges.account_id = inferred_charges.account_id
            and charges.livemode = inferred_charges.livemode
            and charges.charge_id = inferred_charges.charge_id
    left join returns
        on
            charges.account_id = returns.account_id
            and charges.livemode = returns.livemode
            and charges.charge_id = returns.charge_id
            and returns.return_number = 1
    left join refusal_classes as by_reason
        on charges.presumed_outcome_reason = by_reason.code
    left join refusal_classes as by_code
        on charges.failure_code = by_code.code

),

-- Charges that Stripe refused itself. Stripe applies a rule on the security or postal code after the bank has approved.
-- Such a refusal shows by the charge's code, by the rule's name, or by the failed check of a reversed charge. A refusal
-- for an unknown reason counts as Radar's.
refusals as (

    select
        *,
        case
            when coalesce(presumed_outcome_type, '') <> 'blocked' then null
            when reason_class = 'blocked' and presumed_outcome_reason <> 'rule' then 'blocked'
            when
                reason_class = 'verification_failed'
                or code_class = 'verification_failed'
                or regexp_matches(lower(outcome_rule), 'cvc|zip|postal')
                or (
                    network_status = 'reversed_after_approval'
                    and (card_cvc_check = 'fail' or card_postal_code_check = 'fail')
                )
                then 'verification_failed'
            when reason_class = 'predicted_decline' or code_class = 'predicted_decline' then 'predicted_decline'
            else 'blocked'
        end as refusal_class
    from joined

),

classified as (

    select
        *,
        is_bank_debit or is_other_delayed_method as is_delayed,
        is_bank_debit and returned_at is not null as is_returned,
        case
            when refusal_class = 'blocked' then 'blocked'
            when is_bank_debit and returned_at is not null then 'failed'
            when status = 'succeeded' and is_captured then 'succeeded'
            when status = 'succeeded' then 'authorized'
            when status = 'failed' then 'failed'
            else 'processing'
        end as outcome,
        -- The attempt itself has no event: the first event that names the charge came later.
        not is_charge_known
        and case
            when status = 'succeeded' and is_captured_by_hand then authorized_at is null
            when is_bank_debit or is_other_delayed_method then processing_at is null
            when status = 'failed' then failed_at is null
            when status = 'succeeded' and not is_captured then authorized_at is null
            else false
        end as is_attempted_at_estimated
    from refusals

),

final as (

    select
        -- ids
        account_id,
        livemode,
        charge_id,
        payment_intent_id,
        paying_customer_id as customer_id,
        payment_method_id,

        -- strings
        attempted_currency as currency,
        outcome,
        case
            when outcome <> 'failed' then null
            when is_returned then 'bank_return'
            when refusal_class is not null then refusal_class
            when network_status = 'declined_by_network' then 'declined'
            when is_bank_debit then 'bank_return'
            when not is_charge_known and presumed_outcome_type = 'issuer_declined' then 'declined'
            else 'invalid_or_processing'
        end as failure_class,
        case
            when outcome not in ('failed', 'blocked') then null
            when is_returned then return_reason
            when refusal_class = 'verification_failed' and code_class = 'verification_failed' then failure_code
            when presumed_outcome_type in ('issuer_declined', 'blocked')
                then coalesce(presumed_outcome_reason, failure_code)
            else failure_code
        end as failure_code,
        case
            when outcome = 'failed' and presumed_outcome_type = 'issuer_declined' then presumed_outcome_reason
        end as decline_code,
        failure_code as charge_failure_code,
        outcome_type,
        outcome_reason,
        network_status,
        advice_code,
        network_advice_code,
        network_decline_code,
        risk_level,
        payment_method_type,
        card_brand,
        card_funding,
        card_country,
        card_fingerprint,
        card_wallet,
        card_network,
        card_cvc_check,
        bank_account_fingerprint,
        three_d_secure_result,
        three_d_secure_result_reason,
        three_d_secure_flow,

        -- numerics
        attempted_amount as amount,
        captured_amount,
        card_exp_month,
        card_exp_year,

        -- booleans
        is_charge_known,
        is_returned,
        is_attempted_at_estimated,
        case
            when outcome = 'succeeded' and is_captured_by_hand then captured_at is null
            when outcome = 'succeeded' and is_delayed then captured_at is null and succeeded_at is null
            when outcome = 'failed' and is_delayed and not is_returned then failed_at is null
            when outcome = 'failed' and not is_returned then is_attempted_at_estimated
            else false
        end as is_resolved_at_estimated,

        -- timestamps
        created_at as attempted_at,
        case
            when outcome in ('authorized', 'processing') then null
            when is_returned then returned_at
            when outcome = 'succeeded' and captured_at is not null then captured_at
            when outcome = 'succeeded' and is_delayed then coalesce(succeeded_at, created_at)
            when outcome = 'failed' and is_delayed then coalesce(failed_at, created_at)
            else created_at
        end as resolved_at,

        -- the load
        {{ build_id() }} as _load_id
    from classified
    {{ in_time_order('attempted_at') }}

)

select * from final
