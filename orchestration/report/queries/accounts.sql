-- The accounts, how far their data reach, and what is not known.
select
    coverage.account_id,
    coverage.livemode,
    coverage.data_through_at,
    coverage.missing_permissions,
    coverage.payment_intent_count,
    coverage.attempt_count,
    coverage.chargeless_attempt_count,
    coverage.events_known_since_at,
    coverage.data_issue_count,
    coverage.quarantined_object_count,
    coverage.card_testing_attempt_count,
    max(rates.recovery_window_days) as recovery_window_days
from marts.data_coverage as coverage
left join marts.recovery_rates as rates on coverage.account_id = rates.account_id
group by all
order by coverage.account_id
