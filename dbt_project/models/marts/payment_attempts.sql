{#
    Incremental: a build writes all attempts of each episode in which a PaymentIntent, an attempt, a retry evaluation or
    a card-testing flag has changed.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{# Attempts are numbered and compared within an episode, so one changed attempt changes the whole episode. #}
{% set changed_keys %}
    {{ changed_payment_intents([
        'int_payment_intents_linked', 'int_payment_attempts_unioned', 'int_retries_evaluated', 'int_card_tests_flagged'
    ]) }}
{% endset %}
{% set is_in_changed_episode %}
    (account_id, livemode, episode_id) in (
        select account_id, livemode, episode_id from {{ ref('int_payment_intents_linked') }}
        where (account_id, livemode, payment_intent_id) in ({{ changed_keys }})
    )
{% endset %}
{% set is_rewritten %}
    (account_id, livemode, payment_intent_id) in (
        {{ changed_keys }} union select account_id, livemode, payment_intent_id from linked
    )
{% endset %}

with linked as (

    select
        account_id,
        livemode,
        payment_intent_id,
        episode_id
    from {{ ref('int_payment_intents_linked') }}
    where {{ is_in_changed_episode if is_incremental() else 'true' }}

),

evaluations as (

    select * from {{ ref('int_retries_evaluated') }}
    where {{ by_rowid(ref('int_retries_evaluated'), is_rewritten) if is_incremental() else 'true' }}

),

card_tests as (

    select * from {{ ref('int_card_tests_flagged') }}
    where
        is_card_testing
        and {{ by_rowid(ref('int_card_tests_flagged'), is_rewritten) if is_incremental() else 'true' }}

),

unioned as (

    select * from {{ ref('int_payment_attempts_unioned') }}
    where {{ by_rowid(ref('int_payment_attempts_unioned'), is_rewritten) if is_incremental() else 'true' }}

),

-- Sort only the columns that are compared: sorting whole attempts takes twice the time. An attempt is in no episode
-- until its PaymentIntent is known.
compared as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.attempt_id,
        attempts.payment_intent_id,
        attempts.attempt_number,
        attempts.outcome,
        attempts.failure_class,
        attempts.advice_code,
        attempts.attempted_at,
        attempts.is_attempted_at_estimated,
        linked.episode_id
    from unioned as attempts
    left join linked
        on
            attempts.account_id = linked.account_id
            and attempts.livemode = linked.livemode
            and attempts.payment_intent_id = linked.payment_intent_id

),

numbered as (

    select
        account_id,
        livemode,
        attempt_id,
        episode_id,
        case when episode_id is not null then row_number() over in_episode end as episode_attempt_number,
        case when episode_id is not null then lag(outcome) over in_episode end as previous_outcome,
        case when episode_id is not null then lag(failure_class) over in_episode end as previous_failure_class,
        case when episode_id is not null then lag(advice_code) over in_episode end as previous_advice_code,
        date_diff('second', lag(attempted_at) over in_payment, attempted_at) / 3600.0 as hours_since_previous_attempt
    from compared
    window
        in_payment as (partition by account_id, livemode, payment_intent_id order by attempt_number),
        in_episode as (partition by account_id, livemode, episode_id order by {{ attempt_order() }})

),

attempts as (

    select
        attempts.*,
        evaluations.stop_signal,
        evaluations.stop_signal_basis,
        evaluations.prior_stop_signal_attempt_id,
        evaluations.wasted_reason,
        evaluations.excess_rule_id,
        evaluations.visa_category,
        evaluations.declines_24h,
        evaluations.declines_30d_same_amount,
        evaluations.is_retried_too_early,
        evaluations.is_card_data_retry,
        evaluations.min_retry_at,
        evaluations.estimated_network_fee_amount,
        evaluations.estimated_network_fee_currency,
        card_tests.attempt_id is not null as is_card_testing,
        numbered.episode_id,
        numbered.episode_attempt_number,
        numbered.previous_outcome,
        numbered.previous_failure_class,
        numbered.previous_advice_code,
        numbered.hours_since_previous_attempt
    from unioned as attempts
    inner join numbered
        on
            attempts.account_id = numbered.account_id
            and attempts.livemode = numbered.livemode
            and attempts.attempt_id = numbered.attempt_id
    left join evaluations
        on
            attempts.account_id = evaluations.account_id
            and attempts.livemode = evaluations.livemode
            and attempts.attempt_id = evaluations.attempt_id
    left join card_tests
        on
            attempts.account_id = card_tests.account_id
            and attempts.livemode = card_tests.livemode
            and attempts.attempt_id = card_tests.attempt_id

),

final as (

    select
        -- ids
        account_id,
        livemode,
        attempt_id,
        payment_intent_id,
        episode_id,
        charge_id,
        customer_id,
        payment_method_id,
        instrument_key,
        prior_stop_signal_attempt_id,

        -- strings
        attempt_source,
        currency,
        outcome,
        failure_class,
        failure_code,
        decline_code,
        charge_failure_code,
        advice_code,
        network_status,
        network_decline_code,
        network_advice_code,
        outcome_type,
        outcome_reason,
        risk_level,
        payment_method_type,
        card_brand,
        card_network,
        card_funding,
        card_country,
        card_fingerprint,
        card_wallet,
        card_cvc_check,
        three_d_secure_result,
        three_d_secure_result_reason,
        three_d_secure_flow,
        stop_signal,
        stop_signal_basis,
        wasted_reason,
        excess_rule_id,
        estimated_network_fee_currency,
        previous_outcome,
        previous_failure_class,
        previous_advice_code,

        -- numerics
        attempt_number,
        episode_attempt_number,
        amount,
        captured_amount,
        card_exp_month,
        card_exp_year,
        visa_category,
        declines_24h,
        declines_30d_same_amount,
        estimated_network_fee_amount,
        hours_since_previous_attempt,

        -- booleans
        coalesce(episode_attempt_number, attempt_number) > 1 as is_retry,
        advice_code is not null as has_advice_code,
        wasted_reason is not null as is_wasted_retry,
        coalesce(is_retried_too_early, false) as is_retried_too_early,
        coalesce(is_card_data_retry, false) as is_card_data_retry,
        is_card_testing,
        is_charge_known,
        is_returned,
        is_attempted_at_estimated,
        is_resolved_at_estimated,

        -- timestamps
        attempted_at,
        resolved_at,
        min_retry_at,

        -- the load
        {{ build_id() }} as _load_id
    from attempts

)

select * from final
