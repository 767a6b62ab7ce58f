{# More than 150 lines, since it counts each of its sources once and lists every count. #}
with payment_intents as (

    select * from {{ ref('payment_intents') }}

),

charges as (

    select * from {{ ref('stg_stripe__charges') }}

),

attempts as (

    select * from {{ ref('payment_attempts') }}

),

streams as (

    select * from {{ ref('int_sync_streams_pivoted') }}

),

payment_intents_counted as (

    select
        account_id,
        livemode,
        count(*) as payment_intent_count,
        count(*) filter (where is_succeeded_without_charge) as succeeded_without_charge_count
    from payment_intents
    group by account_id, livemode

),

charges_counted as (

    select
        account_id,
        livemode,
        count(*) as charge_count
    from charges
    group by account_id, livemode

),

refunds_counted as (

    select
        account_id,
        livemode,
        count(*) as refund_count
    from {{ ref('stg_stripe__refunds') }}
    group by account_id, livemode

),

disputes_counted as (

    select
        account_id,
        livemode,
        count(*) as dispute_count
    from {{ ref('stg_stripe__disputes') }}
    group by account_id, livemode

),

events_counted as (

    select
        account_id,
        livemode,
        count(*) as event_count
    from {{ ref('stg_stripe__events') }}
    group by account_id, livemode

),

-- A separate scan: if every charge has a PaymentIntent, DuckDB does not read the ids at all.
charges_without_payment_intent_counted as (

    select
        account_id,
        livemode,
        count(*) as charges_without_payment_intent_count
    from {{ ref('stg_stripe__charges') }}
    where payment_intent_id is null
    group by account_id, livemode

),

quarantine_counted as (

    select
        account_id,
        livemode,
        count(*) as quarantined_object_count
    from {{ ref('stg_sync__quarantine') }}
    group by account_id, livemode

),

attempts_counted as (

    select
        account_id,
        livemode,
        count(*) as attempt_count,
        count(*) filter (where attempt_source <> 'charge') as chargeless_attempt_count,
        count(*) filter (where not is_charge_known) as attempts_of_unknown_charges_count,
        count(*) filter (where is_attempted_at_estimated) as estimated_attempted_at_count,
        count(*) filter (where is_resolved_at_estimated) as estimated_resolved_at_count,
        count(*) filter (where is_card_testing) as card_testing_attempt_count,
        -- episode_attempt_number is null if the attempt is in no episode. It is faster to read than episode_id.
        count(*) filter (where episode_attempt_number is null) as attempts_of_unknown_payment_intents_count
    from attempts
    group by account_id, livemode

),

data_issues_counted as (

    select
        account_id,
        livemode,
        count(*) as data_issue_count
    from {{ ref('data_issues') }}
    group by account_id, livemode

),

episodes as (

    select * from {{ ref('recovery_episodes') }}

),

-- Payments in different currencies are not linked. Count failed payments whose customer paid in another currency
-- meanwhile.
cross_currency_counted as (

    select
        account_id,
        livemode,
        count(*) as possible_cross_currency_recovery_count
    from episodes
    where
        first_succeeded_at is null
        and is_in_scope
        and exists (
            select 1 from {{ ref('payment_intents') }} as paid_elsewhere
            where
                paid_elsewhere.account_id = episodes.account_id
                and paid_elsewhere.livemode = episodes.livemode
                and paid_elsewhere.customer_id = episodes.customer_id
                and paid_elsewhere.currency <> episodes.currency
                and paid_elsewhere.first_succeeded_at between episodes.first_failed_at and episodes.window_ends_at
        )
    group by account_id, livemode

),

order_keys_counted as (

    select
        account_id,
        livemode,
        subject as order_name,
        max(out_of) as value_count,
        max(case when measure = 'customers_per_value' then ratio end) as customers_per_value,
        max(case when measure = 'successes_per_value' then ratio end) as successes_per_value,
        max(case when measure = 'shared_values' then counted end) as shared_count
    from {{ ref('link_audit') }}
    where topic = 'orders'
    group by account_id, livemode, subject

),

order_keys_listed as (

    select
        account_id,
        livemode,
        string_agg(
            order_name || ': ' || value_count || ' values, '
            || cast(customers_per_value as decimal(18, 1)) || ' customers and '
            || cast(successes_per_value as decimal(18, 1)) || ' successes per value, ' || shared_count || ' shared',
            '; ' order by order_name
        ) as order_keys,
        cast(sum(shared_count) as bigint) as shared_order_count
    from order_keys_counted
    group by account_id, livemode

),

-- List each account that any table has, also before the first sync has saved its progress.
accounts as (

    select
        account_id,
        livemode
    from streams
    union
    select
        account_id,
        livemode
    from payment_intents_counted
    union
    select
        account_id,
        livemode
    from charges_counted
    union
    select
        account_id,
        livemode
    from attempts_counted
    union
    select
        account_id,
        livemode
    from events_counted

),

final as (

    select
        -- ids
        accounts.account_id,
        accounts.livemode,

        -- strings
        streams.missing_permissions,
        order_keys_listed.order_keys,

        -- numerics
        coalesce(payment_intents_counted.payment_intent_count, 0) as payment_intent_count,
        coalesce(charges_counted.charge_count, 0) as charge_count,
        coalesce(refunds_counted.refund_count, 0) as refund_count,
        coalesce(disputes_counted.dispute_count, 0) as dispute_count,
        coalesce(events_counted.event_count, 0) as event_count,
        coalesce(charges_without_payment_intent_counted.charges_without_payment_intent_count, 0)
            as charges_without_payment_intent_count,
        coalesce(attempts_counted.attempt_count, 0) as attempt_count,
        coalesce(attempts_counted.chargeless_attempt_count, 0) as chargeless_attempt_count,
        coalesce(attempts_counted.attempts_of_unknown_charges_count, 0) as attempts_of_unknown_charges_count,
        coalesce(attempts_counted.attempts_of_unknown_payment_intents_count, 0)
            as attempts_of_unknown_payment_intents_count,
        coalesce(payment_intents_counted.succeeded_without_charge_count, 0) as succeeded_without_charge_count,
        coalesce(attempts_counted.estimated_attempted_at_count, 0) as estimated_attempted_at_count,
        coalesce(attempts_counted.estimated_resolved_at_count, 0) as estimated_resolved_at_count,
        coalesce(attempts_counted.card_testing_attempt_count, 0) as card_testing_attempt_count,
        coalesce(cross_currency_counted.possible_cross_currency_recovery_count, 0)
            as possible_cross_currency_recovery_count,
        coalesce(order_keys_listed.shared_order_count, 0) as shared_order_count,
        coalesce(data_issues_counted.data_issue_count, 0) as data_issue_count,
        coalesce(quarantine_counted.quarantined_object_count, 0) as quarantined_object_count,

        -- timestamps
        streams.data_through_at,
        streams.payment_intent_events_known_since_at as events_known_since_at,
        streams.charge_events_known_since_at,
        streams.payment_intents_complete_through_at,
        streams.charges_complete_through_at,
        streams.refunds_complete_through_at,
        streams.disputes_complete_through_at,
        streams.payment_intent_events_complete_through_at,
        streams.charge_events_complete_through_at
    from accounts
    left join streams
        on accounts.account_id = streams.account_id and accounts.livemode = streams.livemode
    left join payment_intents_counted
        on
            accounts.account_id = payment_intents_counted.account_id
            and accounts.livemode = payment_intents_counted.livemode
    left join charges_counted
        on
            accounts.account_id = charges_counted.account_id
            and accounts.livemode = charges_counted.livemode
    left join refunds_counted
        on
            accounts.account_id = refunds_counted.account_id
            and accounts.livemode = refunds_counted.livemode
    left join disputes_counted
        on
            accounts.account_id = disputes_counted.account_id
            and accounts.livemode = disputes_counted.livemode
    left join events_counted
        on
            accounts.account_id = events_counted.account_id
            and accounts.livemode = events_counted.livemode
    left join charges_without_payment_intent_counted
        on
            accounts.account_id = charges_without_payment_intent_counted.account_id
            and accounts.livemode = charges_without_payment_intent_counted.livemode
    left join attempts_counted
        on
            accounts.account_id = attempts_counted.account_id
            and accounts.livemode = attempts_counted.livemode
    left join quarantine_counted
        on
            accounts.account_id = quarantine_counted.account_id
            and accounts.livemode = quarantine_counted.livemode
    left join cross_currency_counted
        on
            accounts.account_id = cross_currency_counted.account_id
            and accounts.livemode = cross_currency_counted.livemode
    left join order_keys_listed
        on accounts.account_id = order_keys_listed.account_id and accounts.livemode = order_keys_listed.livemode
    left join data_issues_counted
        on
            accounts.account_id = data_issues_counted.account_id
            and accounts.livemode = data_issues_counted.livemode

)

select * from final
