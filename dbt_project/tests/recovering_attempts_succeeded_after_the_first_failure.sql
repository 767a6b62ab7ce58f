-- A recovered episode has a succeeded attempt of its own, which was resolved no earlier than the first failure. If the
-- charge of a success is unknown, there is no such attempt, but the time must still be plausible. The PaymentIntent may
-- be slightly older than its charge; succeeded_payments_have_one_succeeded_charge tests that.
{{ config(meta={'dagster': {'ref': {'name': 'recovery_episodes'}}}) }}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where {{ is_untested() }}

),

attempts as (

    select
        account_id,
        livemode,
        episode_id,
        attempt_id,
        outcome
    from {{ ref('payment_attempts') }}
    where (account_id, livemode, episode_id) in (
        select
            episodes.account_id,
            episodes.livemode,
            episodes.episode_id
        from episodes
    )

),

payment_intents as (

    select
        account_id,
        livemode,
        episode_id,
        payment_intent_id
    from {{ ref('payment_intents') }}
    where (account_id, livemode, episode_id) in (
        select
            episodes.account_id,
            episodes.livemode,
            episodes.episode_id
        from episodes
    )

)

select
    episodes.account_id,
    episodes.livemode,
    episodes.episode_id,
    episodes.recovery_status,
    episodes.recovering_attempt_id,
    episodes.first_failed_at,
    episodes.first_succeeded_at,
    attempts.outcome
from episodes
left join attempts
    on
        episodes.account_id = attempts.account_id
        and episodes.livemode = attempts.livemode
        and episodes.episode_id = attempts.episode_id
        and episodes.recovering_attempt_id = attempts.attempt_id
left join payment_intents
    on
        episodes.account_id = payment_intents.account_id
        and episodes.livemode = payment_intents.livemode
        and episodes.episode_id = payment_intents.episode_id
        and episodes.recovering_payment_intent_id = payment_intents.payment_intent_id
where
    (episodes.recovering_payment_intent_id is not null and payment_intents.payment_intent_id is null)
    or (episodes.recovering_payment_intent_id is not null) <> (episodes.first_succeeded_at is not null)
    or (episodes.recovering_attempt_id is not null and attempts.outcome is distinct from 'succeeded')
    or (episodes.recovering_attempt_id is not null and episodes.first_succeeded_at is null)
    or episodes.first_succeeded_at < episodes.first_failed_at
    or (episodes.recovery_status in ('recovered', 'recovered_late')) <> (episodes.first_succeeded_at is not null)
