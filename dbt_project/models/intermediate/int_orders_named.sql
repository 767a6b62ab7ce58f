{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id', 'order_hash'],
    meta={'tombstone': 'order_name is null'}
) }}

{# A build writes the rows of changed PaymentIntents, and others of their orders if the verdict changes. #}
{% set is_of_changed %}
    {{ is_about_changed_payment_intents() }}
{% endset %}

with payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}
    where
        (first_attempted_at is not null or first_succeeded_at is not null)
        and {{ in_changed_payment_intents(ref('int_payment_intents_summarized'), since='created_at') }}

),

texts as (

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

-- The name is part of the order: an order 17 is no invoice 17.
named as (

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
    from texts
    group by
        account_id, livemode, payment_intent_id, order_name, order_text, customer_id, first_instrument_key, is_paid

),

{% if is_incremental() %}
    known_of_changed as (

        select
            account_id,
            livemode,
            payment_intent_id,
            order_hash
        from {{ this }}
        where {{ by_rowid(this, is_of_changed) }}

    ),

    known_of_orders as (

        select * from {{ this }}
        where {{ by_rowid(this, 'order_hash in
            (select order_hash from named union select order_hash from known_of_changed)
            and not ' ~ is_of_changed) }}

    ),
{% endif %}

all_named as (

    select
        *,
        cast(null as boolean) as was_shared
    from named
    {% if is_incremental() %}
        union all by name
        select
            * exclude (_load_id, is_shared),
            is_shared as was_shared
        from known_of_orders
    {% endif %}

),

-- An order is owed by one payer. Payers are told apart by customer and by card: somebody may pay one order with several
-- cards, and a shop may make several customers of one person. A guest has no customer, so what two guests paid who have
-- no card in common is not one order.
counted as (

    select
        order_hash,
        least(count(distinct customer_id), count(distinct coalesce(first_instrument_key, payment_intent_id))) > 1
        or least(
            count(distinct case when is_paid then coalesce(customer_id, first_instrument_key, payment_intent_id) end),
            count(distinct case when is_paid then coalesce(first_instrument_key, payment_intent_id) end)
        ) > 1 as is_shared
    from all_named
    group by order_hash

),

final as (

    select
        -- ids
        all_named.account_id,
        all_named.livemode,
        all_named.payment_intent_id,
        all_named.order_hash,
        all_named.customer_id,
        all_named.first_instrument_key,

        -- strings
        all_named.order_name,
        all_named.order_key,

        -- numerics
        all_named.precedence,

        -- booleans
        all_named.is_paid,
        counted.is_shared,

        -- the load
        {{ build_id() }} as _load_id
    from all_named
    inner join counted on all_named.order_hash = counted.order_hash
    -- Other PaymentIntents of an order are written again if the verdict about it is another one now.
    where all_named.was_shared is null or all_named.was_shared <> counted.is_shared

    {% if is_incremental() %}
        union all by name
        select
            known_of_changed.account_id,
            known_of_changed.livemode,
            known_of_changed.payment_intent_id,
            known_of_changed.order_hash
        from known_of_changed
        left join named
            on
                known_of_changed.account_id = named.account_id
                and known_of_changed.livemode = named.livemode
                and known_of_changed.payment_intent_id = named.payment_intent_id
                and known_of_changed.order_hash = named.order_hash
        where named.order_hash is null
    {% endif %}

)

select * from final
