-- Each split of episodes in link_audit adds up to all episodes. The rates that include the weakest links equal those of
-- recovery_rates, and the links equal those of payment_intents.
{{ config(meta={'dagster': {'ref': {'name': 'link_audit'}}}) }}

{% set splits = {
    'episodes': 'is_in_scope',
    'recovered_episodes': "is_in_scope and recovery_status in ('recovered', 'recovered_late')",
    'out_of_scope_episodes': 'not is_in_scope'
} %}
{% set rates = {
    ('rates_by_tier', 'strict', ''): 'recovered_strict_count',
    ('rates_by_tier', 'customer', ''): 'recovered_count',
    ('rates_by_confidence', 'up_to', 'low'): 'recovered_count'
} %}

with audit as (

    select
        account_id,
        livemode,
        topic,
        subject,
        coalesce(link_confidence, '') as link_confidence,
        measure,
        counted,
        out_of
    from {{ ref('link_audit') }}

),

expected as (

    {% for measure, condition in splits.items() %}
        select
            account_id,
            livemode,
            'links' as topic,
            link_tier as subject,
            coalesce(link_confidence, '') as link_confidence,
            '{{ measure }}' as measure,
            count(case when {{ condition }} then 1 end) as counted,
            sum(count(case when {{ condition }} then 1 end)) over (partition by account_id, livemode) as out_of
        from {{ ref('recovery_episodes') }}
        group by account_id, livemode, link_tier, link_confidence
        union all
    {% endfor %}
    {% for (topic, subject, link_confidence), recovered_count in rates.items() %}
        select
            account_id,
            livemode,
            '{{ topic }}' as topic,
            '{{ subject }}' as subject,
            '{{ link_confidence }}' as link_confidence,
            'recovered' as measure,
            {{ recovered_count }} as counted,
            failed_count as out_of
        from {{ ref('recovery_rates') }}
        where period = 'all_time' and is_all_currencies and failed_count > 0
        union all
    {% endfor %}
    select
        account_id,
        livemode,
        'links' as topic,
        link_tier as subject,
        coalesce(link_confidence, '') as link_confidence,
        'links' as measure,
        count(*) as counted,
        sum(count(*)) over (partition by account_id, livemode) as out_of
    from {{ ref('payment_intents') }}
    where predecessor_id is not null
    group by account_id, livemode, link_tier, link_confidence

),

-- No other mart has the rates in between.
compared as (

    select * from audit
    where
        topic = 'links'
        or subject in ('strict', 'customer') and topic = 'rates_by_tier'
        or link_confidence = 'low' and topic = 'rates_by_confidence'

)

select
    coalesce(compared.account_id, expected.account_id) as account_id,
    coalesce(compared.livemode, expected.livemode) as livemode,
    coalesce(compared.topic, expected.topic) as topic,
    coalesce(compared.subject, expected.subject) as subject,
    coalesce(compared.link_confidence, expected.link_confidence) as link_confidence,
    coalesce(compared.measure, expected.measure) as measure
from compared
full outer join expected
    on
        compared.account_id = expected.account_id
        and compared.livemode = expected.livemode
        and compared.topic = expected.topic
        and compared.subject = expected.subject
        and compared.link_confidence = expected.link_confidence
        and compared.measure = expected.measure
where
    compared.counted is distinct from expected.counted
    or compared.out_of is distinct from expected.out_of

union all

-- The part in doubt is at most the whole, and adding weaker links never lowers a rate.
select
    smaller.account_id,
    smaller.livemode,
    smaller.topic,
    smaller.subject,
    smaller.link_confidence,
    smaller.measure
from audit as smaller
inner join audit as larger
    on
        smaller.account_id = larger.account_id
        and smaller.livemode = larger.livemode
        and smaller.topic = larger.topic
where
    smaller.counted > larger.counted
    and (
        (smaller.subject = larger.subject and smaller.measure = larger.measure || '_in_doubt')
        or (smaller.topic, smaller.subject, larger.subject) in (
            ('rates_by_tier', 'strict', 'order_part'),
            ('rates_by_tier', 'order_part', 'card'),
            ('rates_by_tier', 'card', 'customer')
        )
        or (smaller.topic, smaller.link_confidence, larger.link_confidence) in (
            ('rates_by_confidence', 'exact', 'high'),
            ('rates_by_confidence', 'high', 'medium'),
            ('rates_by_confidence', 'medium', 'low')
        )
    )
