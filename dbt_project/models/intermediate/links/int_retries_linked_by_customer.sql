{#
    Incremental: a build writes all PaymentIntents of each group in which one has changed. PaymentIntents of a group in
    which nothing can be linked any more lose their rows.
#}
{{ config(
    materialized='incremental',
    unique_key=['account_id', 'livemode', 'payment_intent_id'],
    meta={'tombstone': 'group_hash is null'}
) }}

{{ link_retries(
    'customer_price_hash',
    earlier=['int_retries_linked_by_order', 'int_retries_linked_by_card'],
    gap_days=checked_var('link_gap_days'),
    guest_gap_days=checked_var('guest_link_gap_days')
) }}
