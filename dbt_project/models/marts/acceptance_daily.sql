{#
    Over 150 lines, since the model finds the days that have changed.
    Incremental: a build writes all rows of each day with a changed attempt, and of each day that an attempt has left. A
    day that has no more attempts loses its rows.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'attempted_date'],
    meta={'tombstone': 'attempt_count is null'}
) }}

{% set day = reporting_date('attempted_at') %}
{% set payment = 'account_id, livemode, coalesce(episode_id, payment_intent_id)' %}
{# A payment may have attempts on days that have not changed. #}
{% set is_of_changed_payment %}
    ({{ payment }}) in (
        select {{ payment }} from {{ ref('payment_attempts') }}
        where (account_id, livemode, {{ day }}) in (select account_id, livemode, attempted_date from changed_days)
    )
{% endset %}
{% set dimensions = [
    'account_id', 'livemode', 'attempted_date', 'currency', 'payment_method_type', 'card_brand', 'card_funding',
    'card_country', 'card_wallet', 'three_d_secure_result'
] | join(', ') %}
{% set measures = {
    'attempt': 'is_decided',
    'succeeded': 'is_decided and is_succeeded',
    'network_attempt': 'is_decided and is_sent_to_network',
    'first_attempt': 'is_first and is_decided',
    'first_attempt_succeeded': 'is_first and is_decided and is_succeeded',
    'payment': 'is_first and not is_payment_undecided',
    'payment_succeeded': 'is_first and is_payment_succeeded',
    'undecided': 'is_valid and not is_decided',
    'undecided_payment': 'is_first and is_payment_undecided',
    'invalid': 'not is_valid and not is_excluded',
    'excluded_card_testing': 'is_excluded'
} %}

with {% if is_incremental() %}
    days as (

        select
            account_id,
            livemode,
            {{ day }} as attempted_date,
            count(*) as attempt_count,
            bool_or({{ is_new_since_last_build() }}) as has_new_attempt
        from {{ ref('payment_attempts') }}
        group by account_id, livemode, {{ day }}

    ),

    days_before as (

        select
            account_id,
            livemode,
            attempted_date,
            sum(attempt_count + undecided_count + invalid_count + excluded_card_testing_count) as attempt_count
        from {{ this }}
        group by account_id, livemode, attempted_date

    ),

    -- An attempt that is gone, or has moved to another day, is missing in the count of its former day: that count
    -- differs, or a new attempt has taken its place.
    changed_days as (

        select
            account_id,
            livemode,
            attempted_date,
            days.attempt_count is null as is_empty
        from days
        full outer join days_before using (account_id, livemode, attempted_date)
        where coalesce(days.has_new_attempt, false) or days.attempt_count is distinct from days_before.attempt_count

    ),
{% endif %}

attempts as (

    select
        *,
        {{ day }} as attempted_date,
        coalesce(episode_id, payment_intent_id) as payment_id,
        coalesce(episode_attempt_number, attempt_number) as payment_attempt_number,
        outcome in ('succeeded', 'authorized') as is_succeeded,
        {{ 'is_card_testing' if checked_var('exclude_card_testing') else 'false' }} as is_excluded,
        not is_excluded and (outcome <> 'failed' or outcome_type is distinct from 'invalid') as is_valid,
        is_valid and outcome <> 'processing' as is_decided,
        is_succeeded or (
            charge_id is not null
            and {{ is_refused_by_network() }}
            and network_status is distinct from 'not_sent_to_network'
        ) as is_sent_to_network
    from {{ ref('payment_attempts') }}
    where {{ by_rowid(ref('payment_attempts'), is_of_changed_payment) if is_incremental() else 'true' }}

),

unread_successes as (

    select distinct
        account_id,
        livemode,
        episode_id
    from {{ ref('payment_intents') }}
    where is_succeeded_without_charge

),

payments as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.payment_id,
        min(attempts.payment_attempt_number) as first_number,
        bool_or(attempts.is_succeeded) or count(unread_successes.episode_id) > 0 as is_payment_succeeded,
        not is_payment_succeeded and bool_or(not attempts.is_decided) as is_payment_undecided
    from attempts
    left join unread_successes
        on
            attempts.account_id = unread_successes.account_id
            and attempts.livemode = unread_successes.livemode
            and attempts.episode_id = unread_successes.episode_id
    where attempts.is_valid
    group by attempts.account_id, attempts.livemode, attempts.payment_id

),

joined as (

    select
        attempts.*,
        payments.is_payment_succeeded,
        payments.is_payment_undecided,
        attempts.is_valid and attempts.payment_attempt_number = payments.first_number as is_first
    from attempts
    left join payments
        on
            attempts.account_id = payments.account_id
            and attempts.livemode = payments.livemode
            and attempts.payment_id = payments.payment_id
    {% if is_incremental() %}
        where (attempts.account_id, attempts.livemode, attempts.attempted_date) in (
            select
                account_id,
                livemode,
                attempted_date
            from changed_days
        )
    {% endif %}

),

final as (

    select
        {{ dimensions }},
        {% for name, condition in measures.items() %}
            count(*) filter (where {{ condition }}) as {{ name }}_count,
            cast(coalesce(sum(amount) filter (where {{ condition }}), 0) as bigint) as {{ name }}_amount,
        {% endfor %}
        {{ build_id() }} as _load_id
    from joined
    group by {{ dimensions }}

)

select * from final
{% if is_incremental() %}
    union all by name
    select
        account_id,
        livemode,
        attempted_date
    from changed_days
    where is_empty
{% endif %}
