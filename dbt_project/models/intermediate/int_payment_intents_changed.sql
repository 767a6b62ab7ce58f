{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'measured': ['begun_at']}
) }}

with payment_intents as (

    select * from {{ ref('stg_stripe__payment_intents') }}
    where {{ is_new_since_last_build() }}

),

charges as (

    select * from {{ ref('stg_stripe__charges') }}
    where {{ is_new_since_last_build() }}

),

events as (

    select * from {{ ref('stg_stripe__events') }}
    where {{ is_new_since_last_build() }}

),

last_payment_errors as (

    select * from {{ ref('stg_stripe__last_payment_errors') }}
    where {{ is_new_since_last_build() }}

),

reversals as (

    select
        account_id,
        livemode,
        payment_intent_id,
        charge_id,
        created_at as begun_at,
        _load_id
    from {{ ref('stg_stripe__refunds') }}
    where {{ is_new_since_last_build() }}
    union all
    select
        account_id,
        livemode,
        payment_intent_id,
        charge_id,
        created_at as begun_at,
        _load_id
    from {{ ref('stg_stripe__disputes') }}
    where {{ is_new_since_last_build() }}

),

{% if is_incremental() %}
    named_charges as (

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

    -- Stripe names a charge for one PaymentIntent only. If it is named for two, both are built again, so that the charge is
    -- an attempt of one of them.
    rivals as (

        {% for model, column in [
            ('stg_stripe__charges', 'charge_id'),
            ('stg_stripe__events', 'latest_charge_id'),
            ('stg_stripe__events', 'error_charge_id')
        ] %}
            select
                named.account_id,
                named.livemode,
                named.payment_intent_id,
                named_charges._load_id
            from {{ ref(model) }} as named
            inner join named_charges
                on
                    named.account_id = named_charges.account_id
                    and named.livemode = named_charges.livemode
                    and named.{{ column }} = named_charges.charge_id
                    and named.payment_intent_id <> named_charges.payment_intent_id
            {{ 'union all' if not loop.last }}
        {% endfor %}

    ),
{% endif %}

tellings as (

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
        from rivals
        union all
    {% endif %}
    -- Older API versions name only the charge.
    select
        reversals.account_id,
        reversals.livemode,
        reversed.payment_intent_id,
        reversals.begun_at,
        reversals._load_id
    from reversals
    inner join {{ ref('stg_stripe__charges') }} as reversed
        on
            reversals.account_id = reversed.account_id
            and reversals.livemode = reversed.livemode
            and reversals.charge_id = reversed.charge_id
    where reversals.payment_intent_id is null

),

final as (

    select
        -- ids
        tellings.account_id,
        tellings.livemode,
        tellings.payment_intent_id,

        -- timestamps
        {% if is_incremental() %}
            least(min(tellings.begun_at), min(known.begun_at)) as begun_at,
        {% else %}
            min(tellings.begun_at) as begun_at,
        {% endif %}

        -- the load
        max(tellings._load_id) as _load_id
    from tellings
    {% if is_incremental() %}
        left join {{ this }} as known
            on
                tellings.account_id = known.account_id
                and tellings.livemode = known.livemode
                and tellings.payment_intent_id = known.payment_intent_id
    {% endif %}
    where tellings.payment_intent_id is not null
    group by tellings.account_id, tellings.livemode, tellings.payment_intent_id

)

select * from final
