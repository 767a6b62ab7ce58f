{#
    Incremental: a build writes the rows of changed PaymentIntents. It also writes other PaymentIntents of the same
    orders if the order has become shared, or is no longer shared.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id', 'order_hash'],
    meta={'tombstone': 'order_name is null'}
) }}

{% set is_changed %}
    {{ is_about_changed_payment_intents() }}
{% endset %}

with payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}
    where
        (first_attempted_at is not null or first_succeeded_at is not null)
        and {{ in_changed_payment_intents(ref('int_payment_intents_summarized'), since='created_at') }}

),

order_values as (

    {% for name, column in order_fields() %}
        select
            account_id,
            livemode,
            payment_intent_id,
            customer_id,
            first_instrument_key,
            case when starts_with({{ column }}, 'in_') then 'invoice' else '{{ name }}' end as order_name,
            {{ column }} as order_text,
            {{ loop.index }} as precedence,
            first_succeeded_at is not null as is_paid
        from payment_intents
        where {{ column }} is not null and {{ may_name_order(column) }}
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

-- The field name is part of the order: order 17 is not invoice 17.
order_names as (

    select
        account_id,
        livemode,
        payment_intent_id,
        md5(concat_ws(':', account_id, livemode, order_name, order_text)) as order_hash,
        customer_id,
        first_instrument_key,
        order_name,
        order_name || ':' || order_text as order_key,
        min(precedence) as precedence,
        is_paid
    from order_values
    group by
        account_id, livemode, payment_intent_id, order_name, order_text, customer_id, first_instrument_key, is_paid

),

{% if is_incremental() %}
    existing_of_changed as (

        select
            account_id,
            livemode,
            payment_intent_id,
            order_hash
        from {{ this }}
        where {{ by_rowid(this, is_changed) }}

    ),

    existing_of_same_orders as (

        select * from {{ this }}
        where {{ by_rowid(this, 'order_hash in
            (select order_hash from order_names union select order_hash from existing_of_changed)
            and not ' ~ is_changed) }}

    ),
{% endif %}

all_order_names as (

    select
        *,
        cast(null as boolean) as was_shared
    from order_names
    {% if is_incremental() %}
        union all by name
        select
            * exclude (_load_id, is_shared),
            is_shared as was_shared
        from existing_of_same_orders
    {% endif %}

),

-- One payer owes an order. Customer and card distinguish payers: one payer may use several cards, and a shop may create
-- several customers for one person. Guests have no customer, so two guests who paid without a common card are two
-- payers.
counted as (

    select
        order_hash,
        least(count(distinct customer_id), count(distinct coalesce(first_instrument_key, payment_intent_id))) > 1
        or least(
            count(distinct case when is_paid then coalesce(customer_id, first_instrument_key, payment_intent_id) end),
            count(distinct case when is_paid then coalesce(first_instrument_key, payment_intent_id) end)
        ) > 1 as is_shared
    from all_order_names
    group by order_hash

),

final as (

    select
        -- ids
        all_order_names.account_id,
        all_order_names.livemode,
        all_order_names.payment_intent_id,
        all_order_names.order_hash,
        all_order_names.customer_id,
        all_order_names.first_instrument_key,

        -- strings
        all_order_names.order_name,
        all_order_names.order_key,

        -- numerics
        all_order_names.precedence,

        -- booleans
        all_order_names.is_paid,
        counted.is_shared,

        -- the load
        {{ build_id() }} as _load_id
    from all_order_names
    inner join counted on all_order_names.order_hash = counted.order_hash
    -- Write other PaymentIntents of an order again only if is_shared has changed.
    where all_order_names.was_shared is null or all_order_names.was_shared <> counted.is_shared

    {% if is_incremental() %}
        union all by name
        select
            existing_of_changed.account_id,
            existing_of_changed.livemode,
            existing_of_changed.payment_intent_id,
            existing_of_changed.order_hash
        from existing_of_changed
        left join order_names
            on
                existing_of_changed.account_id = order_names.account_id
                and existing_of_changed.livemode = order_names.livemode
                and existing_of_changed.payment_intent_id = order_names.payment_intent_id
                and existing_of_changed.order_hash = order_names.order_hash
        where order_names.order_hash is null
    {% endif %}

)

select * from final
