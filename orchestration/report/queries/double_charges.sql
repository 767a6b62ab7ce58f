-- Failed payments that were paid in full and then succeeded once more.
select
    currency,
    account_id,
    first_failure_class as failure_class,
    episode_id,
    recovering_payment_intent_id,
    at_risk_amount,
    duplicate_success_count,
    link_confidence,
    first_succeeded_at
from marts.recovery_episodes
where duplicate_success_count > 0
order by first_succeeded_at desc
limit 50
