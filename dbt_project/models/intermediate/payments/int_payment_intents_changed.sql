{#
    Incremental: a build writes one row for each PaymentIntent with an object, event or error that was loaded since the
    last complete build. Other incremental models read these rows to find what they must write again.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'measured': ['begun_at']}
) }}

with {% for relation in ['payment_intents', 'charges', 'events', 'last_payment_errors'] %}
    {{ relation }} as (

        select * from {{ ref('stg_stripe__' ~ relation) }}
        where {{ is_new_since_last_build() if is_incremental() else 'true' }}

    ),
{% endfor %}

reversals as (

    {% for relation in ['refunds', 'disputes'] %}
        select
            account_id,
            livemode,
            payment_intent_id,
            charge_id,
            created_at as begun_at,
            _load_id
        from {{ ref('stg_stripe__' ~ relation) }}
        where {{ is_new_since_last_build() if is_incremental() else 'true' }}
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

{% if is_incremental() %}
    mentioned_charges as (

        select
            account_id,
            livemode,
            charge_id,
            payment_intent_id,
            _load_id
        from charges
        {% for column in ['latest_charge_id', 'error_charge_id'] %}
            union
            select
                account_id,
                livemode,
                {{ column }} as charge_id,
                payment_intent_id,
                _load_id
            from events
            where {{ column }} is not null
        {% endfor %}

    ),

    -- A charge belongs to one PaymentIntent. If two name it, build both again, so that the charge is an attempt of one
    -- of them.
    payment_intents_with_shared_charge as (

        {% for model, column in [
            ('stg_stripe__charges', 'charge_id'),
            ('stg_stripe__events', 'latest_charge_id'),
            ('stg_stripe__events', 'error_charge_id')
        ] %}
            select
                other_mentions.account_id,
                other_mentions.livemode,
                other_mentions.payment_intent_id,
                mentioned_charges._load_id
            from {{ ref(model) }} as other_mentions
            inner join mentioned_charges
                on
                    other_mentions.account_id = mentioned_charges.account_id
                    and other_mentions.livemode = mentioned_charges.livemode
                    and other_mentions.{{ column }} = mentioned_charges.charge_id
                    and other_mentions.payment_intent_id <> mentioned_charges.payment_intent_id
            {{ 'union all' if not loop.last }}
        {% endfor %}

    ),
{% endif %}

changes as (

    {% for relation, begun_at in [
        ('payment_intents', 'created_at'),
        ('charges', 'created_at'),
        ('events', 'created_at'),
        ('last_payment_errors', 'first_seen_at'),
        ('reversals', 'begun_at')
    ] %}
        select
            account_id,
            livemode,
            payment_intent_id,
            {{ begun_at }} as begun_at,
            _load_id
        from {{ relation }}
        union all
    {% endfor %}
    {% if is_incremental() %}
        select
            account_id,
            livemode,
            payment_intent_id,
            null as begun_at,
            _load_id
        from payment_intents_with_shared_charge
        union all
    {% endif %}
    -- Older API versions name only the charge of a refund or dispute.
    select
        reversals.account_id,
        reversals.livemode,
        reversed_charges.payment_intent_id,
        reversals.begun_at,
        reversals._load_id
    from reversals
    inner join {{ ref('stg_stripe__charges') }} as reversed_charges
        on
            reversals.account_id = reversed_charges.account_id
            and reversals.livemode = reversed_charges.livemode
            and reversals.charge_id = reversed_charges.charge_id
    where reversals.payment_intent_id is null

),

final as (

    select
        -- ids
        changes.account_id,
        changes.livemode,
        changes.payment_intent_id,

        -- timestamps
        {% if is_incremental() %}
            least(min(changes.begun_at), min(existing.begun_at)) as begun_at,
        {% else %}
            min(changes.begun_at) as begun_at,
        {% endif %}

        -- the load
        max(changes._load_id) as _load_id
    from changes
    {% if is_incremental() %}
        left join {{ this }} as existing
            on
                changes.account_id = existing.account_id
                and changes.livemode = existing.livemode
                and changes.payment_intent_id = existing.payment_intent_id
    {% endif %}
    where changes.payment_intent_id is not null
    group by changes.account_id, changes.livemode, changes.payment_intent_id

)

select * from final
