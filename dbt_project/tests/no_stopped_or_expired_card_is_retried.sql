-- The advice to retry must not contradict what the card, Stripe or the network says about it. This test reads the
-- attempts and budgets, not the reasons of the advice.
select
    advised.account_id,
    advised.livemode,
    advised.episode_id
from {{ ref('recovery_actions') }} as advised
inner join {{ ref('int_sync_streams_pivoted') }} as watermarks
    on advised.account_id = watermarks.account_id and advised.livemode = watermarks.livemode
inner join {{ ref('payment_attempts') }} as attempts
    on
        advised.account_id = attempts.account_id
        and advised.livemode = attempts.livemode
        and advised.last_attempt_id = attempts.attempt_id
left join {{ ref('card_retry_budgets') }} as budgets
    on
        attempts.account_id = budgets.account_id
        and attempts.livemode = budgets.livemode
        and attempts.instrument_key = budgets.instrument_key
        and lower(coalesce(attempts.card_network, attempts.card_brand)) = budgets.network
        and attempts.currency = budgets.currency
        and attempts.amount = budgets.amount
where
    advised.action in ('retry', 'wait')
    and advised.reason not in ('processing', 'awaiting_capture', 'customer_is_asked')
    and (
        attempts.stop_signal is not null
        or coalesce(budgets.is_blocked, false)
        or attempts.card_exp_year * 12 + attempts.card_exp_month
        < year(watermarks.data_through_at) * 12 + month(watermarks.data_through_at)
        or (advised.action = 'retry' and budgets.next_allowed_at > watermarks.data_through_at)
    )
