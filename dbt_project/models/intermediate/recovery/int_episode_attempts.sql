{# The attempts of the PaymentIntents in int_episode_payment_intents. #}
{{ config(materialized='ephemeral', meta={'part_of': 'int_episodes_summarized'}) }}

{# The timestamp lets DuckDB skip all rows that are older than the oldest linked PaymentIntent. #}
{% set is_in_episode = '(account_id, livemode, payment_intent_id) in
    (select account_id, livemode, payment_intent_id from payment_intents)
    and attempted_at >= ' ~ oldest_new('int_payment_intents_linked', 'started_at') %}

with payment_intents as (

    select
        account_id,
        livemode,
        payment_intent_id
    from {{ ref('int_episode_payment_intents') }}

),

numbered as (

    select * from {{ ref('int_payment_attempts_numbered') }}
    {% if is_incremental() %}
        where {{ by_rowid(ref('int_payment_attempts_numbered'), is_in_episode) }}
    {% endif %}

),

attempts as (

    select attempts.* from {{ ref('int_payment_attempts_unioned') }} as attempts
    inner join payment_intents
        on
            attempts.account_id = payment_intents.account_id
            and attempts.livemode = payment_intents.livemode
            and attempts.payment_intent_id = payment_intents.payment_intent_id
    {% if is_incremental() %}
        where {{ by_rowid(ref('int_payment_attempts_unioned'), is_in_episode) }}
    {% endif %}

),

final as (

    select
        attempts.*,
        numbered.episode_id,
        numbered.episode_attempt_number,
        numbered.is_card_testing
    from attempts
    inner join numbered
        on
            attempts.account_id = numbered.account_id
            and attempts.livemode = numbered.livemode
            and attempts.attempt_id = numbered.attempt_id

)

-- It passes all columns on: int_episodes_summarized names those that it keeps.
select * from final -- noqa: AM04
