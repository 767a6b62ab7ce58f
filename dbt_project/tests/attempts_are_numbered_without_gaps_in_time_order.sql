-- Attempts are numbered 1, 2, 3, … in each PaymentIntent and in each episode, in the order of time. Each attempt has
-- the outcome of the one before it.
{{ config(meta={'dagster': {'ref': {'name': 'payment_attempts'}}}) }}

-- All attempts of the episodes in which one is new: a build may write only those of one PaymentIntent again.
with attempts as (

    select
        *,
        coalesce(episode_id, payment_intent_id) as debt_id
    from {{ ref('payment_attempts') }}

),

untested as (

    select
        account_id,
        livemode,
        debt_id
    from attempts
    where {{ is_untested() }}

),

numbered as (

    select
        account_id,
        livemode,
        payment_intent_id,
        episode_id,
        attempt_id,
        attempt_number,
        episode_attempt_number,
        attempted_at,
        outcome,
        previous_outcome,
        lag(attempt_number, 1, 0) over of_payment as number_before,
        lag(attempted_at) over of_payment as attempted_before_at,
        lag(episode_attempt_number, 1, 0) over of_episode as episode_number_before,
        lag(attempted_at) over of_episode as attempted_before_in_episode_at,
        lag(outcome) over of_episode as outcome_before_in_episode
    from attempts
    where
        (account_id, livemode, debt_id) in (
            select
                untested.account_id,
                untested.livemode,
                untested.debt_id
            from untested
        )
    window
        of_payment as (partition by account_id, livemode, payment_intent_id order by attempt_number),
        of_episode as (partition by account_id, livemode, episode_id order by episode_attempt_number)

)

select *
from numbered
where
    attempt_number <> number_before + 1
    or attempted_at < attempted_before_at
    or (episode_id is null) <> (episode_attempt_number is null)
    or (
        episode_id is not null
        and (
            episode_attempt_number <> episode_number_before + 1
            or attempted_at < attempted_before_in_episode_at
            or previous_outcome is distinct from outcome_before_in_episode
        )
    )
