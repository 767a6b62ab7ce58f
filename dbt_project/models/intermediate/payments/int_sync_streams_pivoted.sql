{% set streams = [
    'payment_intents', 'charges', 'refunds', 'disputes', 'payment_intent_events', 'charge_events'
] %}

with streams as (

    select * from {{ ref('stg_sync__streams') }}

),

pivoted as (

    select
        account_id,
        livemode,
        {% for stream in streams %}
            max(case when stream = '{{ stream }}' then complete_through_at end)
                as {{ stream }}_complete_through_at,
        {% endfor %}
        string_agg(distinct missing_permission, ', ' order by missing_permission) as missing_permissions,
        max(case when stream = 'payment_intent_events' then missing_permission end)
            as payment_intent_events_missing_permission,
        max(case when stream = 'charge_events' then missing_permission end) as charge_events_missing_permission,
        max(case when stream = 'payment_intent_events' then known_since_at end)
            as payment_intent_events_known_since_at,
        max(case when stream = 'charge_events' then known_since_at end) as charge_events_known_since_at
    from streams
    group by account_id, livemode

),

-- The watermark is the earlier of the two event streams. It is null until both listings and the event streams are
-- complete. An event stream that the key may not read is ignored; if it may read neither, the watermark is null.
final as (

    select
        *,
        case
            when payment_intents_complete_through_at is null or charges_complete_through_at is null then null
            when payment_intent_events_missing_permission is not null and charge_events_missing_permission is not null
                then null
            when payment_intent_events_missing_permission is not null then charge_events_complete_through_at
            when charge_events_missing_permission is not null then payment_intent_events_complete_through_at
            when payment_intent_events_complete_through_at <= charge_events_complete_through_at
                then payment_intent_events_complete_through_at
            when charge_events_complete_through_at < payment_intent_events_complete_through_at
                then charge_events_complete_through_at
        end as data_through_at
    from pivoted

)

select * from final
