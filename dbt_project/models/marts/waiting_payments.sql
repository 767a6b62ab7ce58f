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

-- The next action that Stripe shows takes precedence over the payment methods.
waiting as (

    select
        summarized.*,
        case
            when next_actions.next_action_type is null then accepted_compared.waiting_for
            else next_actions.waiting_for
        end as waiting_for
    from summarized
    left join next_actions on summarized.next_action_type = next_actions.next_action_type
    left join accepted_compared
        on
            summarized.account_id = accepted_compared.account_id
            and summarized.livemode = accepted_compared.livemode
            and summarized.payment_intent_id = accepted_compared.payment_intent_id

),

final as (

    select
        -- ids
        waiting.account_id,
        waiting.livemode,
        waiting.payment_intent_id,
        payment_intents.episode_id,
        waiting.customer_id,

        -- strings
        waiting.currency,
        waiting.waiting_for,
        waiting.next_action_type,
        episodes.recovery_status,

        -- numerics
        waiting.amount,
        waiting.attempt_count,

        -- booleans
        episodes.episode_id is not null as has_failed,
        history.is_entered_at_estimated as is_waiting_since_at_estimated,
        coalesce(
            waiting.waiting_for <> 'microdeposits' and waiting.next_action_at <= accounts.data_through_at, false
        ) as is_expired,

        -- timestamps
        history.entered_at as waiting_since_at,
        case when waiting.waiting_for = 'microdeposits' then waiting.next_action_at end as deposits_arrive_at,
        case when waiting.waiting_for <> 'microdeposits' then waiting.next_action_at end as waits_until_at
    from waiting
    inner join history
        on
            waiting.account_id = history.account_id
            and waiting.livemode = history.livemode
            and waiting.payment_intent_id = history.payment_intent_id
    inner join payment_intents
        on
            waiting.account_id = payment_intents.account_id
            and waiting.livemode = payment_intents.livemode
            and waiting.payment_intent_id = payment_intents.payment_intent_id
    left join accounts
        on waiting.account_id = accounts.account_id and waiting.livemode = accounts.livemode
    left join episodes
        on
            payment_intents.account_id = episodes.account_id
            and payment_intents.livemode = episodes.livemode
            and payment_intents.episode_id = episodes.episode_id
    where waiting.waiting_for is not null

)

select * from final
