{% set step_seconds = forecast_step_seconds() %}

with episodes as (

    select * from {{ ref('recovery_episodes') }}
    where is_in_scope

),

-- A payment leaves recovery when it is paid in full within its window, or else when it is canceled. If the time of the
-- cancellation is not known, the payment counts as canceled when it failed.
dated as (

    select
        *,
        coalesce(first_succeeded_at <= window_ends_at, false) as is_recovered,
        case
            when first_succeeded_at <= window_ends_at then first_succeeded_at
            when recovery_status = 'lost_canceled' then coalesce(canceled_at, first_failed_at)
        end as left_at
    from episodes

),

final as (

    select
        -- ids
        account_id,
        livemode,
        currency,
        first_failure_class,

        -- numerics
        at_risk_amount,
        cast(
            case
                when left_at <= window_ends_at
                    then ceil(date_diff('second', first_failed_at, left_at) / {{ step_seconds }}.0)
                else {{ forecast_step_count() }}
            end as bigint
        ) as last_step,

        -- booleans
        is_recovered,
        coalesce(left_at <= window_ends_at and not is_recovered, false) as is_canceled,

        -- timestamps
        first_failed_at,
        window_ends_at,
        left_at
    from dated

)

select * from final
