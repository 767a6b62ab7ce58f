with attempts as (

    select
        *,
        date_trunc('month', {{ reporting_date('resolved_at') }}) as failed_month,
        case
            when payment_method_type in ('card', 'card_present', 'interac_present') then 'card'
            when payment_method_type in {{ bank_debits() }} then 'bank_debit'
            when payment_method_type is null then 'card'
            else 'local_payment_method'
        end as code_scope
    from {{ ref('payment_attempts') }}
    where outcome in ('failed', 'blocked')

),

episodes as (

    select * from {{ ref('recovery_episodes') }}

),

decline_codes as (

    select * from {{ ref('decline_codes') }}

),

summed as (

    select
        attempts.account_id,
        attempts.livemode,
        attempts.failed_month,
        attempts.currency,
        attempts.outcome,
        attempts.failure_class,
        attempts.failure_code,
        attempts.code_scope,
        count(*) as attempt_count,
        sum(attempts.amount) as attempt_amount,
        count(attempts.advice_code) as advice_code_count,
        count(attempts.network_decline_code) as network_decline_code_count,
        count(episodes.episode_id) as first_failure_count,
        count(*) filter (where episodes.is_in_scope) as failed_count,
        count(*) filter (where episodes.is_in_scope and episodes.recovery_status = 'recovered') as recovered_count,
        count(*) filter (where episodes.is_in_scope and episodes.is_matured) as matured_count,
        count(*) filter (
            where episodes.is_in_scope and episodes.is_matured and episodes.recovery_status = 'recovered'
        ) as matured_recovered_count,
        sum(episodes.at_risk_amount) filter (where episodes.is_in_scope) as at_risk_amount,
        sum(episodes.recovered_amount) filter (where episodes.is_in_scope and episodes.recovery_status = 'recovered')
            as recovered_amount
    from attempts
    left join episodes
        on
            attempts.account_id = episodes.account_id
            and attempts.livemode = episodes.livemode
            and attempts.attempt_id = episodes.first_failed_attempt_id
    group by
        attempts.account_id, attempts.livemode, attempts.failed_month, attempts.currency, attempts.outcome,
        attempts.failure_class, attempts.failure_code, attempts.code_scope

),

-- Look up the code for the payment method first, then the general meaning of the code in Stripe's API.
codes_ranked as (

    select
        used.failure_code,
        used.code_scope,
        decline_codes.category,
        decline_codes.is_hard,
        decline_codes.fixed_by,
        decline_codes.recommended_action,
        decline_codes.description,
        row_number() over (
            partition by used.failure_code, used.code_scope
            order by
                case
                    when decline_codes.scope = used.code_scope then 0
                    when decline_codes.scope = 'error_code' then 1
                    when decline_codes.scope = 'card' then 2
                    when decline_codes.scope = 'bank_debit' then 3
                    else 4
                end
        ) as rank_number
    from (
        select distinct
            failure_code,
            code_scope
        from summed
    ) as used
    inner join decline_codes
        on used.failure_code = decline_codes.code

),

final as (

    select
        -- ids
        summed.account_id,
        summed.livemode,
        cast(summed.failed_month as date) as failed_month,
        summed.currency,
        summed.outcome,
        summed.failure_class,
        summed.failure_code,
        summed.code_scope,

        -- strings
        coalesce(codes_ranked.category, 'unknown') as decline_category,
        codes_ranked.recommended_action,
        codes_ranked.fixed_by,
        codes_ranked.description,

        -- numerics
        summed.attempt_count,
        cast(summed.attempt_amount as bigint) as attempt_amount,
        summed.advice_code_count,
        summed.network_decline_code_count,
        summed.first_failure_count,
        summed.failed_count,
        summed.recovered_count,
        summed.matured_count,
        cast(coalesce(summed.at_risk_amount, 0) as bigint) as at_risk_amount,
        cast(coalesce(summed.recovered_amount, 0) as bigint) as recovered_amount,
        summed.matured_recovered_count / nullif(cast(summed.matured_count as double), 0) as recovery_rate_matured,

        -- booleans
        codes_ranked.is_hard
    from summed
    left join codes_ranked
        on
            summed.failure_code = codes_ranked.failure_code
            and summed.code_scope = codes_ranked.code_scope
            and codes_ranked.rank_number = 1

)

select * from final
