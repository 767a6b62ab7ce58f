{#
    Incremental: a build writes the PaymentIntents that changed or whose order changed, and all other PaymentIntents of
    their episodes.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'measured': ['created_at']}
) }}

{#
    PaymentIntents in an episode with a changed one are written again, since the one they were linked to may be gone.
    Nothing else would make the linking models look at them. This model reads the episodes of the last build, before
    int_payment_intents_linked writes them again. A dbt reference would be circular, so it names the relation directly.
#}
{% set key = 'account_id, livemode, payment_intent_id' %}
{% set linked = api.Relation.create(
    database=this.database, schema=this.schema, identifier='int_payment_intents_linked'
) if is_incremental() %}
{# Declares the dependency: dbt does not see a reference inside a condition. #}
{% set changed_model = ref('int_payment_intents_changed') %}
{% set is_rewritten = '(' ~ key ~ ') in (select ' ~ key ~ ' from rewritten)' %}

with {% if is_incremental() %}
    changed as (

        select * from (
            {{ changed_payment_intents(['int_payment_intents_changed', 'int_orders_named']) }}
        ) as changed_keys

    ),

    rewritten as (

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
    where {{ by_rowid(ref('int_payment_intents_summarized'), is_rewritten) if is_incremental() else 'true' }}

),

order_names as (

    select
        *,
        row_number() over (
            partition by account_id, livemode, payment_intent_id order by precedence, order_hash
        ) as order_number
    from {{ ref('int_orders_named') }}
    where not is_shared and {{ by_rowid(ref('int_orders_named'), is_rewritten) if is_incremental() else 'true' }}

),

joined as (

    select
        payment_intents.*,
        order_names.order_name,
        order_names.order_key,
        order_names.order_hash,
        coalesce(payment_intents.first_attempted_at, payment_intents.first_succeeded_at) is not null as is_attempted,
        concat_ws(':', payment_intents.account_id, payment_intents.livemode, payment_intents.currency) as scope,
        payment_intents.currency || ':' || payment_intents.amount as price
    from payment_intents
    left join order_names
        on
            payment_intents.account_id = order_names.account_id
            and payment_intents.livemode = order_names.livemode
            and payment_intents.payment_intent_id = order_names.payment_intent_id
            and order_names.order_number = 1

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
        -- A merchant does not retry while a debit is processing, or while an authorization holds the money.
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
