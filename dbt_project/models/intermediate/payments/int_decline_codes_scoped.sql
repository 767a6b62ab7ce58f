{{ config(materialized='table') }}

{% set scopes = ['card', 'bank_debit', 'local_payment_method'] %}

with decline_codes as (

    select * from {{ ref('decline_codes') }}

),

-- Look up the code for the payment method first, then the general meaning of the code in Stripe's API.
ranked as (

    {% for code_scope in scopes %}
        select
            *,
            '{{ code_scope }}' as code_scope,
            case scope
                when '{{ code_scope }}' then 0
                when 'error_code' then 1
                when 'card' then 2
                when 'bank_debit' then 3
                else 4
            end as scope_rank
        from decline_codes
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

final as (

    select
        code,
        code_scope,
        category,
        recommended_action,
        fixed_by,
        description,
        is_hard
    from ranked
    qualify row_number() over (partition by code, code_scope order by scope_rank) = 1

)

select * from final
