{#
    Over 150 lines, since it names the fifty columns of a charge.
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build. A full build
    writes all rows.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

with charges as (

    select
        *,
        is_bank_debit or is_other_delayed_method as is_delayed,
        is_bank_debit and returned_at is not null as is_returned
    from {{ ref('int_charge_evidence') }}
    where {{ is_new_since_last_build() }}

),

refusal_classes as (

    select * from {{ ref('decline_codes') }}
    where stripe_refusal_class <> ''

),

-- Charges that Stripe refused itself. Stripe applies a rule on the security or postal code after the bank has approved.
-- Such a refusal shows by the charge's code, by the rule's name, or by the failed check of a reversed charge. A refusal
-- for an unknown reason counts as Radar's.
refusals as (

    select
        charges.*,
        by_code.stripe_refusal_class as code_class,
        case
            when coalesce(charges.outcome_type, '') <> 'blocked' then null
            when by_reason.stripe_refusal_class = 'blocked' and charges.outcome_reason <> 'rule' then 'blocked'
            when
                by_reason.stripe_refusal_class = 'verification_failed'
                or by_code.stripe_refusal_class = 'verification_failed'
                or regexp_matches(lower(charges.outcome_rule), 'cvc|zip|postal')
                or (
                    charges.network_status = 'reversed_after_approval'
                    and (charges.card_cvc_check = 'fail' or charges.card_postal_code_check = 'fail')
                )
                then 'verification_failed'
            when
                by_reason.stripe_refusal_class = 'predicted_decline'
                or by_code.stripe_refusal_class = 'predicted_decline'
                then 'predicted_decline'
            else 'blocked'
        end as refusal_class
    from charges
    left join refusal_classes as by_reason
        on charges.outcome_reason = by_reason.code
    left join refusal_classes as by_code
        on charges.failure_code = by_code.code

),

classified as (

    select
        *,
        case
            when refusal_class = 'blocked' then 'blocked'
            when is_returned then 'failed'
            when status = 'succeeded' and is_captured then 'succeeded'
            when status = 'succeeded' then 'authorized'
            when status = 'failed' then 'failed'
            else 'processing'
        end as outcome,
        -- The attempt itself has no event: the first event that names the charge came later.
        case
            when evidence = 'charge' then false
            when status = 'succeeded' and is_captured_by_hand then authorized_at is null
            when is_delayed then processing_at is null
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
        customer_id,
        payment_method_id,

        -- strings
        currency,
        outcome,
        case
            when outcome <> 'failed' then null
            when is_returned then 'bank_return'
            when refusal_class is not null then refusal_class
            when network_status = 'declined_by_network' then 'declined'
            when is_bank_debit then 'bank_return'
            when evidence = 'events' and outcome_type = 'issuer_declined' then 'declined'
            else 'invalid_or_processing'
        end as failure_class,
        case
            when outcome not in ('failed', 'blocked') then null
            when is_returned then return_reason
            when refusal_class = 'verification_failed' and code_class = 'verification_failed' then failure_code
            when outcome_type in ('issuer_declined', 'blocked') then coalesce(outcome_reason, failure_code)
            else failure_code
        end as failure_code,
        case when outcome = 'failed' and outcome_type = 'issuer_declined' then outcome_reason end as decline_code,
        failure_code as charge_failure_code,
        case when evidence = 'charge' then outcome_type end as outcome_type,
        case when evidence = 'charge' then outcome_reason end as outcome_reason,
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
        amount,
        captured_amount,
        card_exp_month,
        card_exp_year,

        -- booleans
        evidence = 'charge' as is_charge_known,
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
