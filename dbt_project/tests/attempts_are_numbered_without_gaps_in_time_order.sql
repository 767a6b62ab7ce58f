-- Attempts are numbered 1, 2, 3, … in each PaymentIntent and in each episode, in the order of time. Each attempt has
-- the outcome of the one before it.
{{ config(meta={'dagster': {'ref': {'name': 'payment_attempts'}}}) }}

-- Whole episodes: int_payment_attempts_numbered writes all attempts of an episode again, payment_attempts only those of
-- a PaymentIntent.
with attempts as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.payment_intent_id,
        attempts.episode_id,
        attempts.attempt_id,
        attempts.attempt_number,
        attempts.episode_attempt_number,
        attempts.attempted_at,
        attempts.outcome,
        attempts.previous_outcome
    from {{ ref('payment_attempts') }} as attempts
    inner join {{ ref('int_payment_attempts_numbered') }} as numbered
        on
            attempts.account_id = numbered.account_id
            and attempts.livemode = numbered.livemode
            and attempts.attempt_id = numbered.attempt_id
    where {{ is_untested('numbered') }}

),

numbered as (

    select
        *,
        lag(attempt_number, 1, 0) over of_payment as number_before,
        lag(attempted_at) over of_payment as attempted_before_at,
        lag(episode_attempt_number, 1, 0) over of_episode as episode_number_before,
        lag(attempted_at) over of_episode as attempted_before_in_episode_at,
        lag(outcome) over of_episode as outcome_before_in_episode
    from attempts
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
