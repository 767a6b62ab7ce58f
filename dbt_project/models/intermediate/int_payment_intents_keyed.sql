{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'measured': ['created_at']}
) }}

{#
    Whoever was in one episode with a changed PaymentIntent is written again: what it was linked to may be gone, and nothing
    else would tell the models that link. Their result of the last build is read here before they write it again, so it is
    no reference of dbt's, which would be a circle.
#}
{% set key = 'account_id, livemode, payment_intent_id' %}
{% set linked = api.Relation.create(
    database=this.database, schema=this.schema, identifier='int_payment_intents_linked'
) if is_incremental() %}
{# Named here, since dbt does not see a reference within a condition. #}
{% set touched = ref('int_payment_intents_changed') %}
{% set is_written = '(' ~ key ~ ') in (select ' ~ key ~ ' from written)' %}

with {% if is_incremental() %}
    changed as (

        select * from (
            {{ changed_payment_intents(['int_payment_intents_changed', 'int_orders_named']) }}
        ) as changed_keys

    ),

    written as (

        select {{ key }} from changed
        union
        select {{ key }} from {{ linked }}
        where (account_id, livemode, episode_id) in (
            select
                account_id,
                livemode,
                episode_id
            from {{ linked }}
            where {{ by_rowid(linked, '(' ~ key ~ ') in (select ' ~ key ~ ' from changed)') }}
        )

    ),
{% endif %}

payment_intents as (

    select * from {{ ref('int_payment_intents_summarized') }}
    where {{ by_rowid(ref('int_payment_intents_summarized'), is_written) if is_incremental() else 'true' }}

),

named as (

    select
        *,
        row_number() over (
            partition by account_id, livemode, payment_intent_id order by precedence, order_hash
        ) as order_number
    from {{ ref('int_orders_named') }}
    where not is_shared and {{ by_rowid(ref('int_orders_named'), is_written) if is_incremental() else 'true' }}

),

joined as (

    select
        payment_intents.*,
        named.order_name,
        named.order_key,
        named.order_hash,
        coalesce(payment_intents.first_attempted_at, payment_intents.first_succeeded_at) is not null as is_attempted,
        concat_ws(':', payment_intents.account_id, payment_intents.livemode, payment_intents.currency) as scope,
        payment_intents.currency || ':' || payment_intents.amount as price
    from payment_intents
    left join named
        on
            payment_intents.account_id = named.account_id
            and payment_intents.livemode = named.livemode
            and payment_intents.payment_intent_id = named.payment_intent_id
            and named.order_number = 1

),

final as (

    select
        -- ids
        account_id,
        livemode,
        payment_intent_id,
        customer_id,
        case when is_attempted then md5('order:' || order_hash || ':' || currency) end as order_currency_hash,
        case when is_attempted then md5('order:' || order_hash || ':' || price) end as order_price_hash,
        case when is_attempted then md5('card:' || scope || ':' || first_instrument_key || ':' || price) end
            as card_price_hash,
        case when is_attempted then md5('customer:' || scope || ':' || customer_id || ':' || price) end
            as customer_price_hash,

        -- strings
        currency,
        order_name,
        order_key,

        -- numerics
        amount,

        -- booleans
        is_attempted,
        failed_attempt_count > 0 as has_failed,
        first_succeeded_at is not null as is_paid,
        -- Nobody tries again while a debit is under way, or while the money is held on the card.
        is_attempted
        and first_succeeded_at is null
        and coalesce(status not in ('processing', 'requires_capture'), true) as is_open,

        -- timestamps
        created_at,
        coalesce(first_attempted_at, first_succeeded_at, created_at) as started_at,
        coalesce(last_activity_at, first_succeeded_at, created_at) as ended_at,
        first_failed_at,
        first_succeeded_at as paid_at,

        -- the load
        {{ build_id() }} as _load_id
    from joined
    {{ in_time_order('created_at') }}

)

select * from final
