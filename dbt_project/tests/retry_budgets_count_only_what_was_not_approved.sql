-- The budget is the limit minus the counted attempts. No more attempts are counted than were not approved in the last
-- 30 days with this card, amount and currency.
{{ config(meta={'dagster': {'ref': {'name': 'card_retry_budgets'}}}) }}

with unapproved as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.instrument_key,
        attempts.currency,
        attempts.amount,
        count(*) filter (where attempts.outcome in ('failed', 'processing')) as unapproved_count,
        count(*) as attempt_count
    from {{ ref('payment_attempts') }} as attempts
    inner join {{ ref('data_coverage') }} as coverage
        on
            attempts.account_id = coverage.account_id
            and attempts.livemode = coverage.livemode
            and attempts.attempted_at > coverage.data_through_at - interval '30 days'
            and attempts.attempted_at <= coverage.data_through_at
    group by
        attempts.account_id, attempts.livemode, attempts.instrument_key, attempts.currency, attempts.amount

)

select
    budgets.account_id,
    budgets.livemode,
    budgets.instrument_key,
    budgets.currency,
    budgets.amount,
    budgets.counted_30d,
    budgets.budget_left,
    unapproved.unapproved_count
from {{ ref('card_retry_budgets') }} as budgets
left join unapproved
    on
        budgets.account_id = unapproved.account_id
        and budgets.livemode = unapproved.livemode
        and budgets.instrument_key = unapproved.instrument_key
        and budgets.currency is not distinct from unapproved.currency
        and budgets.amount = unapproved.amount
where
    budgets.budget_left <> budgets.counted_limit - budgets.counted_30d
    or budgets.counted_30d > coalesce(unapproved.unapproved_count, 0)
    or budgets.attempts_30d > coalesce(unapproved.attempt_count, 0)
    or (budgets.is_blocked and budgets.next_allowed_at is null)
