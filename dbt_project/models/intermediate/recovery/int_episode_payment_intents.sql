{#
    The PaymentIntents of episodes in which an attempt failed; in an incremental build, of those whose PaymentIntents
    int_payment_intents_linked has written. The other int_episode_ models follow these rows.
#}
{{ config(materialized='ephemeral', meta={'part_of': 'int_episodes_summarized'}) }}

{# The timestamp lets DuckDB skip all rows that are older than the oldest linked PaymentIntent. #}
{% set is_new_linked = '(account_id, livemode, payment_intent_id) in
    (select account_id, livemode, payment_intent_id from new_linked)' %}
{% set is_linked = '(account_id, livemode, payment_intent_id) in
    (select account_id, livemode, payment_intent_id from linked)' %}
{% set is_recent = ' and created_at >= ' ~ oldest_new('int_payment_intents_linked', 'created_at') %}
{% set failed_filter = by_rowid(ref('int_payment_intents_summarized'), is_new_linked ~ is_recent) %}
{% set linked_filter = by_rowid(ref('int_payment_intents_summarized'), is_linked ~ is_recent) %}

with new_linked as (

    select * from {{ ref('int_payment_intents_linked') }}
    where {{ is_new_since_last_build() if is_incremental() else 'true' }}

),

failed as (

    select
        new_linked.account_id,
        new_linked.livemode,
        new_linked.episode_id
    from new_linked
    inner join {{ ref('int_payment_intents_summarized') }} as payment_intents
        on
            new_linked.account_id = payment_intents.account_id
            and new_linked.livemode = payment_intents.livemode
            and new_linked.payment_intent_id = payment_intents.payment_intent_id
    where
        payment_intents.failed_attempt_count > 0
        and {{ failed_filter if is_incremental() else 'true' }}

),

-- Most episodes are one PaymentIntent that never failed. Leave them out before sorting.
linked as (

    select * from new_linked
    where
        (new_linked.account_id, new_linked.livemode, new_linked.episode_id) in (
            select
                failed.account_id,
                failed.livemode,
                failed.episode_id
            from failed
        )

),

-- PaymentIntents whose contradictory data would distort rates.
excluded_payment_intents as (

    select distinct
        account_id,
        livemode,
        payment_intent_id
    from {{ ref('data_issues') }}
    where is_excluded_from_rates and {{ is_linked if is_incremental() else 'true' }}

),

final as (

    select
        payment_intents.*,
        excluded_payment_intents.payment_intent_id is not null as has_excluding_issue,
        linked.episode_id,
        linked.order_key,
        linked.link_tier,
        linked.link_confidence,
        linked.episode_position
    from {{ ref('int_payment_intents_summarized') }} as payment_intents
    inner join linked
        on
            payment_intents.account_id = linked.account_id
            and payment_intents.livemode = linked.livemode
            and payment_intents.payment_intent_id = linked.payment_intent_id
    left join excluded_payment_intents
        on
            payment_intents.account_id = excluded_payment_intents.account_id
            and payment_intents.livemode = excluded_payment_intents.livemode
            and payment_intents.payment_intent_id = excluded_payment_intents.payment_intent_id
    where {{ linked_filter if is_incremental() else 'true' }}

)

-- It passes all columns on: int_episodes_summarized names those that it keeps.
select * from final -- noqa: AM04
