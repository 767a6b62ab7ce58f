{#
    Each build counts everything again. So if many PaymentIntents name an order, sample the values whose hash begins
    with 0: hashes are evenly spread. Shared values are few, so all of them are read.
#}
{% set all_values_up_to = 200000 %}
{% set one_value_in = 16 %}

with sampling as (

    select
        case when count(*) > {{ all_values_up_to }} then '1' else '~' end as hash_limit,
        case when count(*) > {{ all_values_up_to }} then {{ one_value_in }} else 1 end as weight
    from {{ ref('int_orders_named') }}

),

order_values as (

    select
        account_id,
        livemode,
        order_name,
        bool_or(is_shared) as is_shared,
        case when bool_or(is_shared) then 1 else (select sampling.weight from sampling) end as weight,
        count(distinct customer_id) as customer_count,
        count(case when is_paid then 1 end) as success_count
    from {{ ref('int_orders_named') }}
    where is_shared or order_hash < (select sampling.hash_limit from sampling)
    group by account_id, livemode, order_name, order_hash

),

final as (

    select
        -- ids
        account_id,
        livemode,
        order_name,

        -- numerics
        sum(weight) as order_values,
        sum(weight * customer_count) as customers,
        sum(weight * success_count) as successes,
        count(case when is_shared then 1 end) as shared_values
    from order_values
    group by account_id, livemode, order_name

)

select * from final
