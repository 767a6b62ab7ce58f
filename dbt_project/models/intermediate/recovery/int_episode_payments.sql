{# The payments of each episode: which count towards the debt, and which completes it. #}
{{ config(materialized='ephemeral', meta={'part_of': 'int_episodes_summarized'}) }}

with first_failures as (

    select * from {{ ref('int_episode_first_failures') }}

),

successes as (

    select * from {{ ref('int_episode_successes') }}

),

-- How much of the amount at risk each payment covers. The PaymentIntent that failed covers all of it, whatever it
-- brought: the merchant accepted that amount. A payment of that PaymentIntent's current price, in any currency, also
-- covers all of it. Other payments cover their own amount, in the same currency only.
successes_with_coverage as (

    select
        successes.*,
        first_failures.currency as at_risk_currency,
        first_failures.at_risk_amount,
        successes.first_succeeded_at
        <= first_failures.resolved_at + interval '{{ checked_var("recovery_window_days") }} days' as is_in_window,
        case
            when successes.payment_intent_id = first_failures.payment_intent_id then first_failures.at_risk_amount
            when
                successes.currency = first_failures.current_currency
                and successes.amount >= first_failures.current_amount
                then first_failures.at_risk_amount
            when successes.currency = first_failures.currency then coalesce(successes.amount, 0)
            else 0
        end as covered_amount,
        successes.payment_intent_id = first_failures.payment_intent_id
        or coalesce(successes.order_key = first_failures.order_key, false) as is_strict
    from successes
    inner join first_failures
        on
            successes.account_id = first_failures.account_id
            and successes.livemode = first_failures.livemode
            and successes.episode_id = first_failures.episode_id

),

running_coverage as (

    select
        *,
        sum(covered_amount) over in_order - covered_amount as covered_before,
        sum(case when is_strict then covered_amount else 0 end) over in_order
        - case when is_strict then covered_amount else 0 end as strict_covered_before
    from successes_with_coverage
    window in_order as (
        partition by account_id, livemode, episode_id order by success_number
        rows between unbounded preceding and current row
    )

),

final as (

    -- Payments count towards the debt until it is paid in full. The last of them completes it. Later payments are
    -- duplicates.
    select
        *,
        covered_before < at_risk_amount or success_number = 1 as counts_towards_debt,
        (covered_before < at_risk_amount or success_number = 1)
        and covered_before + covered_amount >= at_risk_amount as completes_debt,
        is_strict and strict_covered_before < at_risk_amount as is_strict_payment,
        is_strict
        and (strict_covered_before < at_risk_amount or at_risk_amount = 0)
        and strict_covered_before + covered_amount >= at_risk_amount as completes_debt_strictly,
        coalesce(currency = at_risk_currency, false) as is_same_currency
    from running_coverage

)

-- It passes all columns on: int_episodes_summarized names those that it keeps.
select * from final -- noqa: AM04
