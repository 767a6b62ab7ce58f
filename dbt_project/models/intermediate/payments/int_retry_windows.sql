{#
    Over 150 lines, since it names forty columns.
    Incremental: for each card or bank account with a changed attempt, a build writes that attempt and all later ones.
    Earlier attempts decide about later ones, never the other way: nothing before the first changed attempt can change.
    An attempt that is gone, or has lost its instrument, loses its row.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'attempt_id'],
    meta={'tombstone': 'instrument_key is null'}
) }}

{% set instrument = 'account_id, livemode, instrument_key' %}
{% set purchase = 'account_id, livemode, instrument_key, currency, amount' %}
{% set has_changed_instrument %}
    {{ by_rowid(ref('int_retry_signals'), '(' ~ instrument ~ ') in (select ' ~ instrument ~ ' from instruments)') }}
{% endset %}

with
{% if is_incremental() %}
    instruments as (

        select
            account_id,
            livemode,
            instrument_key,
            min(attempted_at) as changed_since
        from (
            select {{ instrument }}, attempted_at from {{ ref('int_retry_signals') }}
            where {{ is_new_since_last_build() }}
            union all
            select {{ instrument }}, attempted_at from {{ this }}
            where {{ in_changed_payment_intents(this, models=['int_retry_signals']) }}
        )
        where instrument_key is not null
        group by account_id, livemode, instrument_key

    ),

{% endif %}
attempts as (

    select
        *,
        row_number() over (partition by {{ purchase }} order by {{ attempt_order() }}) as purchase_attempt_number
    from {{ ref('int_retry_signals') }}
    where instrument_key is not null and {{ has_changed_instrument if is_incremental() else 'true' }}

),

with_earlier_attempts as (

    select
        *,
        last_value(
            case
                when stop_signal is not null
                    then
                        {
                            'attempt_id': attempt_id,
                            'stop_signal': stop_signal,
                            'failure_code': failure_code,
                            'card_expiry': card_expiry,
                            'attempted_at': attempted_at
                        }
            end ignore nulls
        ) over earlier_attempts as last_stop,
        max(min_retry_at) over earlier_attempts as earliest_retry_at,
        max(case when visa_category = 1 then attempted_at end) over earlier_attempts as last_visa_category_1_at,
        lag(advice_code) over in_order as previous_advice_code,
        lag(outcome) over in_order as previous_outcome,
        lag(card_expiry) over in_order as previous_card_expiry,
        lag(attempted_at) over in_order as previous_attempted_at
    from attempts
    window
        in_order as (partition by {{ purchase }} order by purchase_attempt_number),
        earlier_attempts as (
            partition by {{ purchase }} order by purchase_attempt_number
            rows between unbounded preceding and 1 preceding
        )

),

final as (

    select
        -- ids
        account_id,
        livemode,
        attempt_id,
        payment_intent_id,
        instrument_key,

        -- strings
        currency,
        network,
        card_country,
        outcome,
        advice_code,
        network_decline_code,
        three_d_secure_result,
        stop_signal,
        stop_signal_basis,
        previous_outcome,
        previous_advice_code,
        last_stop,

        -- numerics
        amount,
        visa_category,
        card_expiry,
        previous_card_expiry,
        purchase_attempt_number,
        count(*) filter (where is_declined) over (
            partition by {{ instrument }} order by attempted_at
            range between interval '24 hours' preceding and current row
        ) as declines_24h,
        count(*) filter (where is_declined) over last_30_days as declines_30d_same_amount,
        count(*) filter (where is_unapproved) over last_30_days as unapproved_30d_same_amount,

        -- booleans
        is_declined,
        is_unapproved,

        -- timestamps
        attempted_at,
        min_retry_at,
        earliest_retry_at,
        previous_attempted_at,
        last_visa_category_1_at,
        min(case when visa_category between 2 and 4 then attempted_at end) over last_30_days as first_visa_decline_at,

        -- the load
        {{ build_id() }} as _load_id
    from with_earlier_attempts
    window last_30_days as (
        partition by {{ purchase }} order by attempted_at
        range between interval '30 days' preceding and current row
    )

)

{% if is_incremental() %}
    select final.*
    from final
    inner join instruments
        on
            final.account_id = instruments.account_id
            and final.livemode = instruments.livemode
            and final.instrument_key = instruments.instrument_key
            and final.attempted_at >= instruments.changed_since
    -- Tombstones: attempts that are gone, or have lost their instrument.
    union all by name
    select
        account_id,
        livemode,
        attempt_id
    from {{ this }} as existing
    where
        {{ in_changed_payment_intents(this, models=['int_retry_signals']) }}
        and not exists (
            select 1 from final
            where
                final.account_id = existing.account_id
                and final.livemode = existing.livemode
                and final.attempt_id = existing.attempt_id
        )
{% else %}
    select * from final
{% endif %}
