-- At most one rule applies on any day to a network, kind of decline, window, region and card origin. Each regional rule
-- has a global rule for the same.
{{ config(meta={'dagster': {'ref': {'name': 'network_retry_rules'}}}) }}

with rules as (

    select
        *,
        coalesce(window_hours, 0) as window_or_none,
        coalesce(valid_to, date '9999-12-31') as ends_on
    from {{ ref('network_retry_rules') }}

),

-- The global rules of each kind follow each other without a gap.
worldwide as (

    select
        network,
        applies_to,
        window_or_none,
        min(valid_from) as begins_on,
        max(ends_on) as ends_on,
        sum(ends_on - valid_from + 1) as day_count
    from rules
    where region = 'global' and card_origin = 'any'
    group by network, applies_to, window_or_none

),

overlapping as (

    select
        rules.rule_id,
        twins.rule_id as twin_rule_id,
        'overlaps' as complaint
    from rules
    inner join rules as twins
        on
            rules.network = twins.network
            and rules.applies_to = twins.applies_to
            and rules.window_or_none = twins.window_or_none
            and rules.region = twins.region
            and rules.card_origin = twins.card_origin
            and rules.rule_id <> twins.rule_id
    where rules.valid_from between twins.valid_from and twins.ends_on

),

without_worldwide as (

    select
        rules.rule_id,
        null as twin_rule_id,
        'holds without a global one' as complaint
    from rules
    left join worldwide
        on
            rules.network = worldwide.network
            and rules.applies_to = worldwide.applies_to
            and rules.window_or_none = worldwide.window_or_none
    where
        worldwide.network is null
        or rules.valid_from < worldwide.begins_on
        or rules.ends_on > worldwide.ends_on
        or worldwide.day_count <> worldwide.ends_on - worldwide.begins_on + 1

),

final as (

    select * from overlapping
    union all
    select * from without_worldwide

)

select * from final
