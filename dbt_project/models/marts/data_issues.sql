{#
    More than 150 lines, since each of the 18 issues has its text and its condition here.

    Incremental: a build writes all rows of the PaymentIntents that changed since the last complete build, which
    int_payment_intents_changed lists. A full build writes all rows. The key is not unique: a PaymentIntent may have
    several issues, which a build replaces together. A PaymentIntent without an issue loses its rows.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'tombstone': 'issue is null'}
) }}

{# For each issue: its text, and whether the recovery rates leave the payment out. #}
{% set issues = {
    'currency_changed': ('An attempt was in another currency than the payment', false),
    'currency_unknown': ('The currency is missing', true),
    'amount_unknown': ('An amount is missing or is no amount', true),
    'amount_zero': ('An attempt to pay nothing failed', true),
    'status_unknown': ('Recoup does not know this status', true),
    'payment_not_read': ('The PaymentIntent of these attempts is not known', true),
    'charge_not_read': ('The payment succeeded, and its charge is not known', false),
    'outcome_type_unknown': ('Recoup does not know this outcome of a charge', false),
    'failed_after_cancellation': ('An attempt failed after the payment was canceled', false),
    'canceled_before_creation': ('The payment was canceled before it was created', false),
    'attempted_before_creation': ('An attempt was made before the payment was created', false),
    'several_successes': ('More than one charge succeeded', false),
    'status_contradicts_charge': ('A charge succeeded, and the payment has another status', false),
    'received_differs_from_captured': ('What was received is not what was captured', false),
    'received_exceeds_amount': ('More was received than the amount of the payment', false),
    'captured_exceeds_amount': ('More was captured than the amount of the charge', false),
    'reversed_exceeds_received': ('More was refunded and lost in disputes than was received', false),
    'reversed_in_another_currency': ('A refund or lost dispute is in another currency than the payment', false),
} %}

with payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}
    where {{ in_changed_payment_intents(ref('int_payment_intents_summarized'), since='created_at') }}

),

attempts as (

    select * from {{ ref('int_payment_attempts_unioned') }}
    where {{ in_changed_payment_intents(ref('int_payment_attempts_unioned'), since='attempted_at') }}

),

charges as (

    select * from {{ ref('stg_stripe__charges') }}
    where
        payment_intent_id is not null
        and {{ in_changed_payment_intents(ref('stg_stripe__charges'), since='created_at') }}

),

reversals as (

    select * from {{ ref('int_reversals_summed') }}
    where {{ in_changed_payment_intents(ref('int_reversals_summed')) }}

),

-- Each attempt with its PaymentIntent, whose columns are null if it is not known.
compared as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.payment_intent_id,
        attempts.attempt_id,
        attempts.attempt_number,
        attempts.currency,
        attempts.outcome,
        attempts.outcome_type,
        attempts.amount,
        attempts.captured_amount,
        attempts.is_returned,
        attempts.attempted_at,
        attempts.resolved_at,
        payment_intents.payment_intent_id is not null as is_payment_known,
        payment_intents.currency as payment_currency,
        payment_intents.status as payment_status,
        payment_intents.succeeded_attempt_number,
        payment_intents.created_at,
        payment_intents.canceled_at
    from attempts
    left join payment_intents
        on
            attempts.account_id = payment_intents.account_id
            and attempts.livemode = payment_intents.livemode
            and attempts.payment_intent_id = payment_intents.payment_intent_id

),

captured as (

    select
        account_id,
        livemode,
        payment_intent_id,
        sum(captured_amount) as captured_amount
    from attempts
    where outcome = 'succeeded' or is_returned
    group by account_id, livemode, payment_intent_id

),

found as (

    {% for issue, evidence, condition in [
        ('currency_changed', "currency || ' instead of ' || payment_currency", 'currency <> payment_currency'),
        ('currency_unknown', 'attempt_id', 'currency is null'),
        ('amount_unknown', 'attempt_id', 'amount is null'),
        ('amount_zero', 'attempt_id', "outcome = 'failed' and amount = 0"),
        ('payment_not_read', 'attempt_id', 'not is_payment_known'),
        (
            'outcome_type_unknown', 'outcome_type',
            "outcome_type not in ('authorized', 'manual_review', 'issuer_declined', 'blocked', 'invalid')"
        ),
        ('failed_after_cancellation', 'attempt_id', "outcome = 'failed' and resolved_at > canceled_at"),
        ('attempted_before_creation', 'attempt_id', 'attempted_at < created_at'),
        ('several_successes', 'attempt_id', "outcome = 'succeeded' and attempt_number > succeeded_attempt_number"),
        (
            'status_contradicts_charge', "coalesce(payment_status, 'none')",
            "outcome = 'succeeded' and is_payment_known and payment_status is distinct from 'succeeded'"
        ),
        (
            'captured_exceeds_amount', "captured_amount || ' of ' || amount",
            'captured_amount > amount'
        ),
    ] %}
        select
            account_id,
            livemode,
            payment_intent_id,
            '{{ issue }}' as issue,
            {{ evidence }} as evidence,
            coalesce(resolved_at, attempted_at) as happened_at
        from compared
        where {{ condition }}
        union all
    {% endfor %}
    {% for issue, evidence, condition in [
        ('currency_unknown', 'payment_intent_id', 'currency is null'),
        ('amount_unknown', 'payment_intent_id', 'amount is null'),
        ('charge_not_read', 'payment_intent_id', 'is_succeeded_without_charge'),
        ('canceled_before_creation', 'payment_intent_id', 'canceled_at < created_at'),
        ('received_exceeds_amount', "received_amount || ' of ' || amount", 'received_amount > amount'),
        (
            'status_unknown', "coalesce(status, 'none')",
            "coalesce(status not in ('requires_payment_method', 'requires_confirmation', 'requires_action', "
            ~ "'processing', 'requires_capture', 'succeeded', 'canceled'), true)"
        ),
        (
            'reversed_exceeds_received', "refunded_amount + lost_dispute_amount || ' of ' || received_amount",
            'refunded_amount + lost_dispute_amount > received_amount'
        ),
    ] %}
        select
            account_id,
            livemode,
            payment_intent_id,
            '{{ issue }}' as issue,
            {{ evidence }} as evidence,
            created_at as happened_at
        from payment_intents
        where {{ condition }}
        union all
    {% endfor %}
    select
        account_id,
        livemode,
        payment_intent_id,
        'status_unknown' as issue,
        coalesce(status, 'none') as evidence,
        created_at as happened_at
    from charges
    where coalesce(status not in ('succeeded', 'pending', 'failed'), true)
    union all
    select
        payment_intents.account_id,
        payment_intents.livemode,
        payment_intents.payment_intent_id,
        'received_differs_from_captured' as issue,
        payment_intents.received_amount || ' and ' || captured.captured_amount as evidence,
        payment_intents.created_at as happened_at
    from payment_intents
    inner join captured
        on
            payment_intents.account_id = captured.account_id
            and payment_intents.livemode = captured.livemode
            and payment_intents.payment_intent_id = captured.payment_intent_id
    where payment_intents.status = 'succeeded' and payment_intents.received_amount <> captured.captured_amount
    union all
    select
        payment_intents.account_id,
        payment_intents.livemode,
        payment_intents.payment_intent_id,
        'reversed_in_another_currency' as issue,
        coalesce(reversals.currency, 'none') || ' instead of ' || payment_intents.currency as evidence,
        reversals.last_reversed_at as happened_at
    from payment_intents
    inner join reversals
        on
            payment_intents.account_id = reversals.account_id
            and payment_intents.livemode = reversals.livemode
            and payment_intents.payment_intent_id = reversals.payment_intent_id
    where
        reversals.currency is distinct from payment_intents.currency
        and reversals.refunded_amount + reversals.lost_dispute_amount > 0

),

summed as (

    select
        account_id,
        livemode,
        payment_intent_id,
        issue,
        string_agg(distinct evidence, ', ' order by evidence) as evidence,
        min(happened_at) as first_happened_at
    from found
    group by account_id, livemode, payment_intent_id, issue

),

final as (

    select
        -- ids
        account_id,
        livemode,
        payment_intent_id,

        -- strings
        issue,
        case issue
            {% for issue, (text, is_excluded) in issues.items() %}
                when '{{ issue }}' then '{{ text }}'
            {% endfor %}
        end || coalesce(': ' || evidence, '') || '.' as detail,

        -- booleans
        case issue
            {% for issue, (text, is_excluded) in issues.items() %}
                when '{{ issue }}' then {{ is_excluded }}
            {% endfor %}
        end as is_excluded_from_rates,

        -- timestamps
        first_happened_at,

        -- the load
        {{ build_id() }} as _load_id
    from summed

    -- Tombstones: delete the former issues of each changed PaymentIntent.
    {% if is_incremental() %}
        union all by name
        select
            account_id,
            livemode,
            payment_intent_id
        from {{ changed_payment_intents() }}
    {% endif %}

)

select * from final
