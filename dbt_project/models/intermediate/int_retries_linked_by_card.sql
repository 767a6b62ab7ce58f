{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'tombstone': 'group_hash is null'}
) }}

{{ link_retries(
    'card_price_hash',
    earlier=['int_retries_linked_by_order'],
    gap_days=var('link_gap_days'),
    guest_gap_days=var('guest_link_gap_days')
) }}
