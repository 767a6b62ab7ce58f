-- The models contain the latest version of each raw row: as many rows, and the same sum of load numbers. data_coverage
-- has the same counts. A missing row was skipped by a build or deleted by hand; --full-refresh restores it.
{{ config(meta={'dagster': {'ref': {'name': 'data_coverage'}}}) }}

{% set tables = ['payment_intents', 'charges', 'refunds', 'disputes', 'events', 'last_payment_errors'] %}

with loaded as (

    {% for table in tables %}
        select
            account_id,
            livemode,
            '{{ table }}' as what,
            count(*) as row_count,
            sum(_load_id) as load_sum
        from {{ source('stripe', table) }}
        group by account_id, livemode
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

staged as (

    {% for table in tables %}
        select
            account_id,
            livemode,
            '{{ table }}' as what,
            count(*) as row_count,
            sum(_load_id) as load_sum
        from {{ ref('stg_stripe__' ~ table) }}
        group by account_id, livemode
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

shown as (

    {% for kind in ['payment_intent', 'charge', 'refund', 'dispute', 'event'] %}
        select
            account_id,
            livemode,
            '{{ kind }}s' as what,
            {{ kind }}_count as row_count
        from {{ ref('data_coverage') }}
        {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    loaded.account_id,
    loaded.livemode,
    loaded.what,
    loaded.row_count as loaded_count,
    staged.row_count as staged_count,
    shown.row_count as shown_count,
    loaded.load_sum,
    staged.load_sum as staged_load_sum
from loaded
left join staged
    on loaded.account_id = staged.account_id and loaded.livemode = staged.livemode and loaded.what = staged.what
left join shown
    on loaded.account_id = shown.account_id and loaded.livemode = shown.livemode and loaded.what = shown.what
where
    (
        loaded.row_count is distinct from staged.row_count
        or loaded.load_sum is distinct from staged.load_sum
        or (loaded.row_count is distinct from shown.row_count and loaded.what <> 'last_payment_errors')
    )
    {% if not checked_var('is_plan') and not checked_var('fingerprint') %}
        -- By hand, only if no load is open.
        and not exists (
            select 1 from {{ sync_table('loads') }} as open_loads
            where open_loads.build_id is null
        )
    {% endif %}
