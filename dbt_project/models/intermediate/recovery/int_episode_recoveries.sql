{# How the debt of each episode was paid: by which payment, and with what that had failed before. #}
{{ config(materialized='ephemeral', meta={'part_of': 'int_episodes_summarized'}) }}

with attempts as (

    select * from {{ ref('int_episode_attempts') }}

),

first_failures as (

    select * from {{ ref('int_episode_first_failures') }}

),

completing_payments as (

    select * from {{ ref('int_episode_payments') }}
    where completes_debt

),

-- Attempts that failed before the debt was paid, compared with the payment that completed it.
failures as (

    select
        attempts.*,
        attempts.instrument_key = completing_payments.instrument_key as uses_paying_instrument,
        attempts.payment_method_id = completing_payments.succeeded_payment_method_id as uses_paying_method,
        coalesce(attempts.card_exp_month, 0) = coalesce(completing_payments.card_exp_month, 0)
        and coalesce(attempts.card_exp_year, 0) = coalesce(completing_payments.card_exp_year, 0) as has_same_expiry
    from attempts
    left join completing_payments
        on
            attempts.account_id = completing_payments.account_id
            and attempts.livemode = completing_payments.livemode
            and attempts.episode_id = completing_payments.episode_id
    where {{ failed_before('completing_payments') }}

),

failures_compared as (

    select
        account_id,
        livemode,
        episode_id,
        coalesce(bool_or(uses_paying_instrument), false) as is_instrument_seen,
        coalesce(bool_or(uses_paying_method), false) as is_method_seen,
        coalesce(bool_or(uses_paying_instrument and has_same_expiry), false) as is_card_unchanged,
        bool_or(coalesce(instrument_key, payment_method_id) is not null) as is_any_instrument_known,
        bool_or(failure_class = 'authentication_failed' or failure_code = 'authentication_required')
            as has_authentication_failure,
        bool_and(is_card_testing) as is_card_testing
    from failures
    group by account_id, livemode, episode_id

),

final as (

    select
        -- ids
        first_failures.account_id,
        first_failures.livemode,
        first_failures.episode_id,
        completing_payments.payment_intent_id as recovering_payment_intent_id,
        completing_payments.succeeded_attempt_id as recovering_attempt_id,

        -- strings
        case
            when completing_payments.payment_intent_id is null then null
            when completing_payments.payment_intent_id = first_failures.payment_intent_id then 'within_intent'
            else 'cross_intent'
        end as recovery_scope,
        case
            when completing_payments.succeeded_attempt_id is null then null
            when not failures_compared.is_any_instrument_known then null
            when not failures_compared.is_instrument_seen and not failures_compared.is_method_seen
                then case when completing_payments.instrument_key is not null then 'new_instrument' end
            when completing_payments.instrument_key is not null and not failures_compared.is_card_unchanged
                then 'card_updated'
            when
                completing_payments.three_d_secure_result = 'authenticated'
                and failures_compared.has_authentication_failure
                then 'authenticated'
            else 'same_instrument_retry'
        end as recovery_method,
        case
            when completing_payments.succeeded_attempt_id is null then null
            when completing_payments.is_tagged_as_retry then 'merchant_tagged'
            when
                completing_payments.card_cvc_check is not null
                or completing_payments.three_d_secure_flow = 'challenge'
                then 'customer_likely'
        end as recovery_initiator,

        -- numerics
        completing_payments.succeeded_episode_attempt_number as attempts_to_recovery,

        -- booleans
        failures_compared.is_card_testing,
        completing_payments.is_first_succeeded_at_estimated,

        -- timestamps
        completing_payments.first_succeeded_at
    from first_failures
    inner join failures_compared
        on
            first_failures.account_id = failures_compared.account_id
            and first_failures.livemode = failures_compared.livemode
            and first_failures.episode_id = failures_compared.episode_id
    left join completing_payments
        on
            first_failures.account_id = completing_payments.account_id
            and first_failures.livemode = completing_payments.livemode
            and first_failures.episode_id = completing_payments.episode_id

)

select * from final
