{% set is_in_recovery = '(account_id, livemode, episode_id) in
        (select episodes.account_id, episodes.livemode, episodes.episode_id from episodes)' %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where is_in_scope and recovery_status = 'in_recovery'

),

accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}
    where data_through_at is not null

),

-- The PaymentIntent to act on: one with money under way, else the latest open one, else the latest.
payment_intents as (

    select * from {{ ref('payment_intents') }}
    where {{ is_in_recovery }}
    qualify
        row_number() over (
            partition by account_id, livemode, episode_id
            order by
                coalesce(status in ('processing', 'requires_capture'), false) desc,
                coalesce(status not in ('succeeded', 'canceled'), true) desc,
                episode_position desc
        ) = 1

),

last_attempts as (

    select
        *,
        lower(coalesce(card_network, card_brand)) as network,
        case
            when card_exp_month between 1 and 12 and card_exp_year between 1 and 9999
                then make_timestamp(card_exp_year, card_exp_month, 1, 0, 0, 0) + interval '1 month'
        end as card_expires_at
    from {{ ref('payment_attempts') }}
    where outcome <> 'succeeded' and {{ is_in_recovery }}
    qualify
        row_number() over (
            partition by account_id, livemode, episode_id
            order by episode_attempt_number desc
        ) = 1

),

budgets as (

    select * from {{ ref('card_retry_budgets') }}

),

waiting as (

    select * from {{ ref('waiting_payments') }}

),

decline_codes as (

    select * from {{ ref('int_decline_codes_scoped') }}

),

joined as (

    select
        episodes.account_id,
        episodes.livemode,
        episodes.episode_id,
        episodes.customer_id,
        payment_intents.payment_intent_id,
        last_attempts.attempt_id as last_attempt_id,
        episodes.currency,
        episodes.first_failure_class,
        episodes.first_decline_category,
        episodes.recovery_sub_status,
        payment_intents.status as payment_intent_status,
        waiting.waiting_for,
        last_attempts.outcome as last_outcome,
        last_attempts.failure_class,
        last_attempts.failure_code,
        last_attempts.decline_category,
        last_attempts.recommended_action,
        last_attempts.advice_code,
        last_attempts.network_advice_code,
        coalesce(last_attempts.code_scope, 'card') as code_scope,
        coalesce(
            budgets.stop_signal,
            last_attempts.stop_signal,
            case when last_attempts.advice_code = 'do_not_try_again' then 'advice_do_not_try_again' end
        ) as stop_signal,
        coalesce(budgets.stop_signal_basis, last_attempts.stop_signal_basis) as stop_signal_basis,
        budgets.rule_id,
        budgets.budget_left,
        episodes.attempt_count,
        episodes.at_risk_amount - episodes.recovered_amount as open_amount,
        last_attempts.is_hard,
        coalesce(last_attempts.card_expires_at <= accounts.data_through_at, false) as is_card_expired,
        episodes.first_failed_at,
        episodes.window_ends_at,
        accounts.data_through_at,
        greatest(
            last_attempts.min_retry_at,
            budgets.next_allowed_at,
            case when budgets.budget_left <= 0 then budgets.budget_resets_at end
        ) as retry_allowed_at
    from episodes
    inner join accounts
        on episodes.account_id = accounts.account_id and episodes.livemode = accounts.livemode
    left join payment_intents
        on
            episodes.account_id = payment_intents.account_id
            and episodes.livemode = payment_intents.livemode
            and episodes.episode_id = payment_intents.episode_id
    left join last_attempts
        on
            episodes.account_id = last_attempts.account_id
            and episodes.livemode = last_attempts.livemode
            and episodes.episode_id = last_attempts.episode_id
    left join budgets
        on
            last_attempts.account_id = budgets.account_id
            and last_attempts.livemode = budgets.livemode
            and last_attempts.instrument_key = budgets.instrument_key
            and last_attempts.network = budgets.network
            and last_attempts.currency = budgets.currency
            and last_attempts.amount = budgets.amount
    left join waiting
        on
            payment_intents.account_id = waiting.account_id
            and payment_intents.livemode = waiting.livemode
            and payment_intents.payment_intent_id = waiting.payment_intent_id

),

final as (

    select
        joined.*,
        -- A demand for authentication stops retries without the customer, not the card.
        coalesce(joined.stop_signal = 'hard_code' and decline_codes.category = 'authentication', false)
            as is_authentication_demanded
    from joined
    left join decline_codes
        on joined.stop_signal_basis = decline_codes.code and joined.code_scope = decline_codes.code_scope

)

select * from final
