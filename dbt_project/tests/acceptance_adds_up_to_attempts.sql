-- Each attempt is in one count of acceptance_daily, on its day, with its amount. All days are compared, so that a day
-- that an incremental build has missed is found.
{{ config(meta={'dagster': {'ref': {'name': 'acceptance_daily'}}}) }}

{% set is_excluded = 'is_card_testing' if checked_var('exclude_card_testing') else 'false' %}

with acceptance as (

    select
        account_id,
        livemode,
        currency,
        attempted_date,
        sum(attempt_count + undecided_count + invalid_count + excluded_card_testing_count) as all_count,
        sum(attempt_amount + undecided_amount + invalid_amount + excluded_card_testing_amount) as all_amount,
        sum(succeeded_count) as succeeded_count,
        sum(undecided_count) as undecided_count,
        sum(excluded_card_testing_count) as excluded_count
    from {{ ref('acceptance_daily') }}
    group by account_id, livemode, currency, attempted_date

),

attempts as (

    select
        account_id,
        livemode,
        currency,
        {{ reporting_date('attempted_at') }} as attempted_date,
        count(*) as all_count,
        coalesce(sum(amount), 0) as all_amount,
        count(*) filter (where outcome in ('succeeded', 'authorized') and not {{ is_excluded }}) as succeeded_count,
        count(*) filter (where outcome = 'processing' and not {{ is_excluded }}) as undecided_count,
        count(*) filter (where {{ is_excluded }}) as excluded_count
    from {{ ref('payment_attempts') }}
    group by account_id, livemode, currency, {{ reporting_date('attempted_at') }}

)

select
    attempts.account_id,
    attempts.livemode,
    attempts.currency,
    coalesce(acceptance.attempted_date, attempts.attempted_date) as attempted_date,
    acceptance.all_count,
    attempts.all_count as count_of_attempts
from acceptance
full outer join attempts
    on
        acceptance.account_id = attempts.account_id
        and acceptance.livemode = attempts.livemode
        and acceptance.currency is not distinct from attempts.currency
        and acceptance.attempted_date = attempts.attempted_date
where
    acceptance.all_count is distinct from attempts.all_count
    or acceptance.all_amount is distinct from attempts.all_amount
    or acceptance.succeeded_count is distinct from attempts.succeeded_count
    or acceptance.undecided_count is distinct from attempts.undecided_count
    or acceptance.excluded_count is distinct from attempts.excluded_count
