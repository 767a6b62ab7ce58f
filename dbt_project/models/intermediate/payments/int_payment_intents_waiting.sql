{{ config(materialized='table') }}

with history as (

    select * from {{ ref('payment_intent_status_history') }}
    where is_current and status = 'requires_action'

),

summarized as (

    select * from {{ ref('int_payment_intents_summarized') }}
    where status = 'requires_action'

),

payment_intents as (

    select * from {{ ref('payment_intents') }}
    where status = 'requires_action'

),

episodes as (

    select * from {{ ref('recovery_episodes') }}

),

accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

next_actions as (

    select * from {{ ref('next_actions') }}

),

payment_methods as (

    select
        waiting_for,
        unnest(string_split(payment_method_types, ' ')) as payment_method_type
    from next_actions

),

accepted as (

    select
        account_id,
        livemode,
        payment_intent_id,
        unnest(string_split(payment_method_types, ' ')) as payment_method_type
    from summarized

),

-- The only thing that a payment can wait for, given the payment methods that it accepts. Null if one method allows
-- other steps.
accepted_compared as (

    select
        accepted.account_id,
        accepted.livemode,
        accepted.payment_intent_id,
        case
            when count(*) > count(payment_methods.waiting_for) then null
            when count(distinct payment_methods.waiting_for) = 1 then min(payment_methods.waiting_for)
            else 'unknown'
        end as waiting_for
    from accepted
    left join payment_methods on accepted.payment_method_type = payment_methods.payment_method_type
    group by accepted.account_id, accepted.livemode, accepted.payment_intent_id

),

final as (

    select
        -- ids
        summarized.account_id,
        summarized.livemode,
        summarized.payment_intent_id,
        payment_intents.episode_id,
        summarized.customer_id,

        -- strings
        summarized.currency,
        -- The next action that Stripe shows takes precedence over the payment methods.
        case
            when next_actions.next_action_type is null then accepted_compared.waiting_for
            else next_actions.waiting_for
        end as waiting_for,
        summarized.next_action_type,
        episodes.recovery_status,

        -- numerics
        summarized.amount,
        summarized.attempt_count,

        -- booleans
        episodes.episode_id is not null as has_failed,
        history.is_entered_at_estimated as is_waiting_since_at_estimated,

        -- timestamps
        history.entered_at as waiting_since_at,
        summarized.next_action_at,
        accounts.data_through_at
    from summarized
    inner join history
        on
            summarized.account_id = history.account_id
            and summarized.livemode = history.livemode
            and summarized.payment_intent_id = history.payment_intent_id
    inner join payment_intents
        on
            summarized.account_id = payment_intents.account_id
            and summarized.livemode = payment_intents.livemode
            and summarized.payment_intent_id = payment_intents.payment_intent_id
    left join next_actions on summarized.next_action_type = next_actions.next_action_type
    left join accepted_compared
        on
            summarized.account_id = accepted_compared.account_id
            and summarized.livemode = accepted_compared.livemode
            and summarized.payment_intent_id = accepted_compared.payment_intent_id
    left join accounts
        on summarized.account_id = accounts.account_id and summarized.livemode = accounts.livemode
    left join episodes
        on
            payment_intents.account_id = episodes.account_id
            and payment_intents.livemode = episodes.livemode
            and payment_intents.episode_id = episodes.episode_id

)

select * from final
