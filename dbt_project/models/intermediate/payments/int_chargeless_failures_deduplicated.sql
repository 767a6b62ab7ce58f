{#
    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows. The key is not unique: a PaymentIntent has several
    failures, which a build replaces together.
#}
{{ config(materialized='incremental', unique_key=['account_id', 'livemode', 'payment_intent_id']) }}

{% set error_columns = [
    'error_payment_method_id', 'error_code', 'error_decline_code', 'error_advice_code', 'error_network_advice_code',
    'error_network_decline_code', 'payment_method_type', 'card_brand', 'card_funding', 'card_country',
    'card_fingerprint', 'card_wallet', 'bank_account_fingerprint', 'card_exp_month', 'card_exp_year'
] | join(', ') %}

{# Columns that are equal in two events of the same failure: Stripe may create two Event objects for one change. #}
{% set failure_identity = [
    'account_id', 'livemode', 'object_id', 'error_type', 'error_code', 'error_decline_code', 'error_payment_method_id'
] | join(', ') %}

with payment_intents as (

    select * from {{ ref('stg_stripe__payment_intents') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__payment_intents'), since='created_at') }}

),

charges as (

    select * from {{ ref('int_charges_resolved') }}
    where {{ in_changed_payment_intents(ref('int_charges_resolved'), since='attempted_at') }}

),

events as (

    select * from {{ ref('stg_stripe__events') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__events'), since='created_at') }}

),

last_payment_errors as (

    select * from {{ ref('stg_stripe__last_payment_errors') }}
    where {{ in_changed_payment_intents(ref('stg_stripe__last_payment_errors')) }}

),

-- A second event of the same failure follows at once: a customer cannot fail another authentication within two seconds.
compared_events as (

    select
        *,
        coalesce(
            created_at - lag(created_at) over (
                partition by {{ failure_identity }} order by created_at, event_id
            ) <= interval '2 seconds',
            false
        ) as is_duplicate_event
    from events
    where
        event_type = 'payment_intent.payment_failed'
        and coalesce(error_type, error_code) is not null
        and error_charge_id is null

),

counted_events as (

    select
        *,
        sum(case when is_duplicate_event then 0 else 1 end) over (
            partition by {{ failure_identity }} order by created_at, event_id
            rows between unbounded preceding and current row
        ) as failure_number
    from compared_events

),

-- Keep the first event of each failure. Give it the smallest event id, so that the order of arrival does not matter.
failed_events as (

    select
        * exclude (event_id),
        min(event_id) over (partition by {{ failure_identity }}, failure_number) as event_id
    from counted_events
    qualify
        row_number() over (partition by {{ failure_identity }}, failure_number order by created_at, event_id) = 1

),

-- Errors without an event: Stripe lists events for thirty days only.
unexplained_errors as (

    select * from last_payment_errors
    where
        error_charge_id is null
        and not exists (
            select 1 from failed_events
            where
                failed_events.account_id = last_payment_errors.account_id
                and failed_events.livemode = last_payment_errors.livemode
                and failed_events.object_id = last_payment_errors.payment_intent_id
                and failed_events.created_at <= last_payment_errors.first_seen_at
                and failed_events.error_type is not distinct from last_payment_errors.error_type
                and failed_events.error_code is not distinct from last_payment_errors.error_code
                and failed_events.error_decline_code is not distinct from last_payment_errors.error_decline_code
                and failed_events.error_payment_method_id
                is not distinct from last_payment_errors.error_payment_method_id
        )

),

-- Stripe shows an error until the next attempt. So it happened after all charges that were made before it was first
-- seen.
preceding_charges as (

    select
        unexplained_errors.account_id,
        unexplained_errors.livemode,
        unexplained_errors.last_payment_error_id,
        max(charges.attempted_at) as last_charged_at
    from unexplained_errors
    inner join charges
        on
            unexplained_errors.account_id = charges.account_id
            and unexplained_errors.livemode = charges.livemode
            and unexplained_errors.payment_intent_id = charges.payment_intent_id
            and unexplained_errors.first_seen_at >= charges.attempted_at
    group by
        unexplained_errors.account_id, unexplained_errors.livemode, unexplained_errors.last_payment_error_id

),

-- Nothing is attempted after a success. Stripe's clocks differ by seconds, so a failure dated moments after the success
-- happened before it.
succeeded_charges as (

    select
        account_id,
        livemode,
        payment_intent_id,
        min(attempted_at) as succeeded_at
    from charges
    where outcome = 'succeeded'
    group by account_id, livemode, payment_intent_id

),

failures as (

    select
        account_id,
        livemode,
        object_id as payment_intent_id,
        object_id || ':' || event_id as attempt_id,
        'event' as attempt_source,
        customer_id,
        currency,
        amount,
        {{ error_columns }},
        created_at as seen_at
    from failed_events
    union all
    select
        account_id,
        livemode,
        payment_intent_id,
        last_payment_error_id as attempt_id,
        'last_payment_error' as attempt_source,
        null as customer_id,
        null as currency,
        null as amount,
        {{ error_columns }},
        first_seen_at as seen_at
    from unexplained_errors

),

final as (

    select
        -- ids
        failures.account_id,
        failures.livemode,
        failures.attempt_id,
        failures.payment_intent_id,
        coalesce(failures.customer_id, payment_intents.customer_id) as customer_id,
        failures.error_payment_method_id as payment_method_id,

        -- strings
        failures.attempt_source,
        coalesce(failures.currency, payment_intents.currency) as currency,
        'failed' as outcome,
        case
            when
                failures.error_code = 'payment_intent_authentication_failure'
                or failures.error_decline_code = 'authentication_required'
                then 'authentication_failed'
            else 'invalid_or_processing'
        end as failure_class,
        coalesce(failures.error_decline_code, failures.error_code) as failure_code,
        failures.error_decline_code as decline_code,
        failures.error_advice_code as advice_code,
        failures.error_network_advice_code as network_advice_code,
        failures.error_network_decline_code as network_decline_code,
        failures.payment_method_type,
        failures.card_brand,
        failures.card_funding,
        failures.card_country,
        failures.card_fingerprint,
        failures.card_wallet,
        failures.bank_account_fingerprint,

        -- numerics
        coalesce(failures.amount, payment_intents.amount) as amount,
        failures.card_exp_month,
        failures.card_exp_year,

        -- booleans
        failures.attempt_source = 'last_payment_error' as is_attempted_at_estimated,

        -- timestamps
        case
            when
                failures.attempt_source = 'event'
                and failures.seen_at <= succeeded_charges.succeeded_at + interval '1 minute'
                then least(failures.seen_at, succeeded_charges.succeeded_at)
            when failures.attempt_source = 'event' then failures.seen_at
            else coalesce(preceding_charges.last_charged_at, payment_intents.created_at, failures.seen_at)
        end as attempted_at,

        -- the load
        {{ build_id() }} as _load_id
    from failures
    left join payment_intents
        on
            failures.account_id = payment_intents.account_id
            and failures.livemode = payment_intents.livemode
            and failures.payment_intent_id = payment_intents.payment_intent_id
    left join preceding_charges
        on
            failures.account_id = preceding_charges.account_id
            and failures.livemode = preceding_charges.livemode
            and failures.attempt_id = preceding_charges.last_payment_error_id
    left join succeeded_charges
        on
            failures.account_id = succeeded_charges.account_id
            and failures.livemode = succeeded_charges.livemode
            and failures.payment_intent_id = succeeded_charges.payment_intent_id

)

select * from final
