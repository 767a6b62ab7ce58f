{#
    Incremental: a build writes all PaymentIntents of each order in which one has changed. PaymentIntents of an order in
    which nothing can be linked any more lose their rows.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'tombstone': 'group_hash is null'}
) }}

{% set retries = ['int_retries_linked_by_order', 'int_retries_linked_by_card', 'int_retries_linked_by_customer'] %}
{% set changed_models = ['int_payment_intents_keyed'] + retries %}

with {% if is_incremental() %}
    changed_groups as (

        select order_currency_hash from {{ ref('int_payment_intents_keyed') }}
        where {{ in_changed_payment_intents(ref('int_payment_intents_keyed'), models=changed_models) }}
        union
        select group_hash from {{ this }}
        where {{ in_changed_payment_intents(this, models=changed_models) }}

    ),
{% endif %}

linked as (

    {% for model in retries %}
        select
            account_id,
            livemode,
            payment_intent_id,
            predecessor_id
        from {{ ref(model) }}
        where predecessor_id is not null
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

keyed as (

    select * from {{ ref('int_payment_intents_keyed') }}
    where
        order_currency_hash is not null
        {% if is_incremental() %}
            and {{ by_rowid(ref('int_payment_intents_keyed'), 'order_currency_hash in (select * from changed_groups)') }}
        {% else %}
            -- Most orders have no open PaymentIntent. Leave them out before sorting.
            and order_currency_hash in (
                select heads.order_currency_hash from {{ ref('int_payment_intents_keyed') }} as heads
                where heads.is_open
            )
        {% endif %}

),

predecessors as (

    select distinct
        account_id,
        livemode,
        predecessor_id
    from linked

),

-- An open PaymentIntent without a retry of the same amount may be paid in parts.
candidates as (

    select
        keyed.*,
        keyed.is_open and predecessors.predecessor_id is null as is_free,
        linked.payment_intent_id is null as may_follow,
        count(*) over (partition by keyed.order_currency_hash) as member_count,
        bool_or(keyed.is_open) over (partition by keyed.order_currency_hash) as has_open
    from keyed
    left join predecessors
        on
            keyed.account_id = predecessors.account_id
            and keyed.livemode = predecessors.livemode
            and keyed.payment_intent_id = predecessors.predecessor_id
    left join linked
        on
            keyed.account_id = linked.account_id
            and keyed.livemode = linked.livemode
            and keyed.payment_intent_id = linked.payment_intent_id

),

members as (

    select * from candidates
    -- Every pair is compared, and no real order has thousands of parts.
    where member_count between 2 and 5000 and has_open

),

-- The open PaymentIntent that ended last before each start. PaymentIntents that overlap in time are separate debts.
nearest as (

    select
        members.order_currency_hash,
        members.payment_intent_id,
        members.may_follow,
        members.started_at,
        case when members.is_paid then members.amount else 0 end as paid_amount,
        open_members.payment_intent_id as predecessor_id,
        open_members.amount as open_amount,
        row_number() over (
            partition by members.order_currency_hash, members.payment_intent_id
            order by open_members.ended_at desc, open_members.payment_intent_id asc
        ) as open_number
    from members
    inner join members as open_members
        on
            members.order_currency_hash = open_members.order_currency_hash
            and members.payment_intent_id <> open_members.payment_intent_id
            and open_members.is_free
            and members.created_at > open_members.ended_at
            and members.started_at >= open_members.ended_at + interval '{{ checked_var("link_pause_seconds") }} seconds'
            and members.started_at
            <= open_members.ended_at + interval '{{ checked_var("explicit_link_gap_days") }} days'

),

-- Parts belong to the debt until they have paid it. A payment that settled another debt is not a part of this one.
summed as (

    select
        *,
        coalesce(sum(paid_amount) over (
            partition by order_currency_hash, predecessor_id
            order by started_at, payment_intent_id
            rows between unbounded preceding and 1 preceding
        ), 0) as paid_before
    from nearest
    where open_number = 1 and may_follow

),

final as (

    select
        -- ids
        members.account_id,
        members.livemode,
        members.payment_intent_id,
        members.order_currency_hash as group_hash,
        summed.predecessor_id,

        -- the load
        {{ build_id() }} as _load_id
    from members
    left join summed
        on
            members.order_currency_hash = summed.order_currency_hash
            and members.payment_intent_id = summed.payment_intent_id
            and summed.paid_before < summed.open_amount

    {% if is_incremental() %}
        union all by name
        select
            existing.account_id,
            existing.livemode,
            existing.payment_intent_id
        from {{ this }} as existing
        left join members
            on
                existing.account_id = members.account_id
                and existing.livemode = members.livemode
                and existing.payment_intent_id = members.payment_intent_id
        where existing.group_hash in (select * from changed_groups) and members.payment_intent_id is null
    {% endif %}

)

select * from final
