{% set purchase = 'account_id, livemode, instrument_key, network, currency, amount' %}

with accounts as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

rules as (

    select * from {{ ref('network_retry_rules') }}
    where region = 'global' and window_hours = 720 and applies_to in ('category_2_to_4', 'declines_any')

),

recent as (

    select
        attempts.*,
        accounts.data_through_at
    from {{ ref('int_retry_windows') }} as attempts
    inner join accounts
        on attempts.account_id = accounts.account_id and attempts.livemode = accounts.livemode
    where
        attempts.network is not null
        and attempts.amount is not null
        and attempts.attempted_at > accounts.data_through_at - interval '30 days'
        and attempts.attempted_at <= accounts.data_through_at
        -- A limit over all accounts lets DuckDB skip older rows.
        and attempts.attempted_at > (select min(known.data_through_at) - interval '30 days' from accounts as known)

),

with_first_decline as (

    select
        *,
        min(case when network <> 'visa' or visa_category between 2 and 4 then purchase_attempt_number end) over (
            partition by {{ purchase }}
        ) as first_decline_number
    from recent

),

-- Visa counts unapproved attempts after the first such decline. Mastercard counts every decline. Neither counts
-- approvals.
counted as (

    select
        *,
        case network
            when 'visa' then is_unapproved and purchase_attempt_number > first_decline_number
            when 'mastercard' then is_declined
        end as is_counted
    from with_first_decline

),

summed as (

    select
        {{ purchase }},
        max(data_through_at) as data_through_at,
        count(*) as attempts_30d,
        count(*) filter (where is_counted) as counted_30d,
        count(network_decline_code) as network_decline_code_count,
        count(advice_code) as advice_code_count,
        min(attempted_at) filter (where is_counted) as oldest_counted_at,
        max(attempted_at) as last_attempted_at,
        max_by(outcome, purchase_attempt_number) as last_outcome,
        max_by(card_expiry, purchase_attempt_number) as last_card_expiry,
        max_by(stop_signal, purchase_attempt_number) filter (where stop_signal is not null) as stop_signal,
        max_by(card_expiry, purchase_attempt_number) filter (where stop_signal is not null) as stopped_card_expiry,
        max(attempted_at) filter (where stop_signal is not null) as stopped_at,
        max(min_retry_at) as min_retry_at
    from counted
    group by {{ purchase }}
    having bool_or(outcome = 'failed')

),

final as (

    select
        -- ids
        summed.account_id,
        summed.livemode,
        summed.instrument_key,
        summed.network,
        summed.currency,
        summed.amount,

        -- strings
        rules.rule_id,
        case when summed.stopped_card_expiry = summed.last_card_expiry then summed.stop_signal end as stop_signal,
        summed.last_outcome,

        -- numerics
        summed.attempts_30d,
        summed.counted_30d,
        summed.network_decline_code_count,
        summed.advice_code_count,
        cast(rules.max_reattempts as bigint) as counted_limit,
        cast(rules.warn_at as bigint) as warn_at,
        rules.max_reattempts - summed.counted_30d as budget_left,

        -- booleans
        coalesce(summed.stopped_card_expiry = summed.last_card_expiry, false) as is_blocked,
        coalesce(summed.counted_30d >= rules.warn_at, false) as is_near_limit,

        -- timestamps
        summed.last_attempted_at,
        summed.oldest_counted_at + interval '30 days' as budget_resets_at,
        case
            when summed.stopped_card_expiry = summed.last_card_expiry then summed.stopped_at + interval '30 days'
            when summed.counted_30d >= rules.max_reattempts
                then greatest(
                    summed.oldest_counted_at + interval '30 days', coalesce(summed.min_retry_at, summed.data_through_at)
                )
            when summed.min_retry_at > summed.data_through_at then summed.min_retry_at
        end as next_allowed_at
    from summed
    left join rules
        on
            summed.network = rules.network
            and summed.data_through_at >= rules.valid_from
            and summed.data_through_at < coalesce(rules.valid_to + 1, date '9999-12-31')

)

select * from final
