{#
    The only model that numbers the attempts of an episode. Incremental: a build writes all attempts of each episode in
    which a PaymentIntent, a link, an attempt or a card-testing flag has changed.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{# Attempts are compared within an episode, so one changed attempt changes the whole episode. #}
{% set changed = changed_payment_intents([
    'int_payment_intents_linked', 'int_payment_attempts_unioned', 'int_card_tests_flagged'
]) %}
{% set is_rewritten = '(account_id, livemode, payment_intent_id) in (
    select account_id, livemode, payment_intent_id from changed
    union
    select account_id, livemode, payment_intent_id from linked
)' %}

with {% if is_incremental() %}
    changed as (

        select * from ({{ changed }}) as changed_payment_intents

    ),
{% endif %}

linked as (

    select
        account_id,
        livemode,
        payment_intent_id,
        episode_id
    from {{ ref('int_payment_intents_linked') }}
    {% if is_incremental() %}
        where (account_id, livemode, episode_id) in (
            select
                account_id,
                livemode,
                episode_id
            from {{ ref('int_payment_intents_linked') }}
            where (account_id, livemode, payment_intent_id) in (select * from changed)
        )
    {% endif %}

),

card_tests as (

    select
        account_id,
        livemode,
        attempt_id
    from {{ ref('int_card_tests_flagged') }}
    where
        is_card_testing
        and {{ by_rowid(ref('int_card_tests_flagged'), is_rewritten) if is_incremental() else 'true' }}

),

-- Sort only the columns that are compared: sorting whole attempts takes twice the time. An attempt is in no episode
-- until its PaymentIntent is known.
attempts as (

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
        linked.episode_id,
        card_tests.attempt_id is not null as is_card_testing
    from {{ ref('int_payment_attempts_unioned') }} as attempts
    left join linked
        on
            attempts.account_id = linked.account_id
            and attempts.livemode = linked.livemode
            and attempts.payment_intent_id = linked.payment_intent_id
    left join card_tests
        on
            attempts.account_id = card_tests.account_id
            and attempts.livemode = card_tests.livemode
            and attempts.attempt_id = card_tests.attempt_id
    where {{ by_rowid(ref('int_payment_attempts_unioned'), is_rewritten) if is_incremental() else 'true' }}

),

final as (

    select
        -- ids
        account_id,
        livemode,
        attempt_id,
        payment_intent_id,
        episode_id,

        -- strings
        case when episode_id is not null then lag(outcome) over in_episode end as previous_outcome,
        case when episode_id is not null then lag(failure_class) over in_episode end as previous_failure_class,
        case when episode_id is not null then lag(advice_code) over in_episode end as previous_advice_code,

        -- numerics
        case when episode_id is not null then row_number() over in_episode end as episode_attempt_number,
        date_diff('second', lag(attempted_at) over in_payment, attempted_at) / 3600.0 as hours_since_previous_attempt,

        -- booleans
        is_card_testing,

        -- timestamps
        attempted_at,

        -- the load
        {{ build_id() }} as _load_id
    from attempts
    window
        in_payment as (partition by account_id, livemode, payment_intent_id order by attempt_number),
        in_episode as (partition by account_id, livemode, episode_id order by {{ attempt_order() }})
    {{ in_time_order('attempted_at') }}

)

select * from final
