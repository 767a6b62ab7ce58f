with attempts as (

    select
        *,
        date_trunc('month', {{ reporting_date('resolved_at') }}) as failed_month
    from {{ ref('payment_attempts') }}
    where outcome in ('failed', 'blocked')

),

episodes as (

    select * from {{ ref('recovery_episodes') }}

),

decline_codes as (

    select * from {{ ref('int_decline_codes_scoped') }}

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
        coalesce(decline_codes.category, 'unknown') as decline_category,
        decline_codes.recommended_action,
        decline_codes.fixed_by,
        decline_codes.description,

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
        decline_codes.is_hard
    from summed
    left join decline_codes
        on
            summed.failure_code = decline_codes.code
            and summed.code_scope = decline_codes.code_scope

)

select * from final
