with in_recovery as (

    select
        *,
        greatest(date_diff('second', first_failed_at, data_through_at), 0) // 86400 as days_since_first_failure,
        greatest(date_diff('second', data_through_at, window_ends_at), 0) // 86400 as days_left
    from {{ ref('int_episodes_in_recovery') }}

),

chances as (

    select * from {{ ref('int_recovery_chances') }}

),

-- The first reason that applies decides. DECISIONLOG.md has the rules.
reasoned as (

    select
        *,
        case
            when recovery_sub_status in ('processing', 'awaiting_capture') then recovery_sub_status
            when payment_intent_status = 'requires_action' then 'customer_is_asked'
            when last_outcome = 'blocked' or decline_category = 'fraud' then 'fraud'
            when recommended_action = 'do_not_retry' then 'do_not_retry'
            when recommended_action in ('check_for_duplicate', 'fix_integration') then 'merchant_must_fix'
            when
                is_card_expired
                or failure_code in ('expired_card', 'partner_expired_card', 'expired_payment_method')
                then 'card_expired'
            when stop_signal <> 'hard_code' then 'issuer_says_stop'
            when stop_signal = 'hard_code' and not is_authentication_demanded then 'hard_decline'
            when decline_category <> 'authentication' and (is_hard or decline_category = 'hard') then 'hard_decline'
            when
                decline_category = 'data'
                or advice_code = 'confirm_card_data'
                or recommended_action in (
                    'update_card_details', 'use_another_method', 'update_bank_details', 'renew_mandate'
                )
                then 'payment_details'
            when
                is_authentication_demanded
                or decline_category = 'authentication'
                or failure_class = 'authentication_failed'
                then 'authentication_required'
            when retry_allowed_at > data_through_at and budget_left <= 0 then 'network_limit'
            when retry_allowed_at > data_through_at then 'retry_advised_after'
            when recommended_action is null then 'unknown_code'
            else 'soft_decline'
        end as reason
    from in_recovery

),

decided as (

    select
        *,
        case
            when reason in ('processing', 'awaiting_capture') then 'wait'
            -- Vouchers, transfers and microdeposits wait for the payer or the bank; there is nothing to authenticate.
            when reason = 'customer_is_asked' and waiting_for is not null then 'wait'
            when reason in ('customer_is_asked', 'authentication_required') then 'ask_to_authenticate'
            when reason in ('fraud', 'do_not_retry', 'merchant_must_fix') then 'stop'
            when reason in ('card_expired', 'issuer_says_stop', 'hard_decline', 'payment_details')
                then 'ask_for_new_card'
            when reason in ('network_limit', 'retry_advised_after') and retry_allowed_at < window_ends_at then 'wait'
            when reason in ('network_limit', 'retry_advised_after') then 'ask_for_new_card'
            else 'retry'
        end as action -- noqa: RF04
    from reasoned

),

final as (

    select
        -- ids
        decided.account_id,
        decided.livemode,
        decided.episode_id,
        decided.payment_intent_id,
        decided.last_attempt_id,
        decided.customer_id,

        -- strings
        decided.currency,
        decided.action,
        decided.reason,
        case
            when decided.reason in ('processing', 'awaiting_capture') then null
            when decided.reason = 'customer_is_asked' then decided.waiting_for
            when decided.reason = 'issuer_says_stop' then decided.stop_signal
            when decided.reason = 'network_limit' then decided.rule_id
            when decided.reason = 'retry_advised_after' then decided.network_advice_code
            when decided.stop_signal = 'hard_code' and decided.reason in ('hard_decline', 'authentication_required')
                then coalesce(decided.stop_signal_basis, decided.failure_code)
            else decided.failure_code
        end as reason_detail,
        decided.failure_code,
        decided.first_failure_class,
        decided.first_decline_category,
        {{ dashboard_url('decided.payment_intent_id', relation='decided') }} as dashboard_url,

        -- numerics
        decided.open_amount,
        cast(round(decided.open_amount * chances.recovery_rate) as bigint) as expected_recovered_amount,
        chances.recovery_rate as expected_recovery_rate,
        chances.recovery_rate_lower as expected_recovery_rate_lower,
        chances.recovery_rate_upper as expected_recovery_rate_upper,
        chances.payment_count as past_payment_count,
        decided.budget_left,
        decided.attempt_count,
        decided.days_since_first_failure,
        decided.days_left,

        -- timestamps
        case
            when decided.action = 'wait' and decided.reason in ('network_limit', 'retry_advised_after')
                then decided.retry_allowed_at
            when decided.action not in ('wait', 'stop') then decided.data_through_at
        end as earliest_at,
        case when decided.action <> 'stop' then decided.window_ends_at end as latest_at
    from decided
    left join chances
        on
            decided.account_id = chances.account_id
            and decided.livemode = chances.livemode
            and decided.first_failure_class = chances.first_failure_class
            and decided.first_decline_category = chances.first_decline_category
            and {{ cell_of('decided.days_since_first_failure', day_cells()) }} = chances.days_from
            and {{ cell_of('decided.attempt_count', attempt_cells()) }} = chances.attempts_from

)

select * from final
