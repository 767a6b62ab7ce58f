{#
    Link each retry to the PaymentIntent that it retries. Both belong to one group: the same order, card or customer,
    and the same price. DECISIONLOG.md has the reason and the measured figures for each rule.

    1. A PaymentIntent that was attempted and never paid is `open`. A later one of its group may follow it (macro
       `follows`) if it began after the last attempt of the open one, and within the gap.
    2. A customer who pays the same price at a regular interval (the `rhythm`) owes the next payment anyway. The gap
       ends before that payment is due. A PaymentIntent that begins when a payment is due is `scheduled`, not a retry.
    3. Each PaymentIntent follows at most one other, and has at most one successor. `extra_retries` and
       `double_payments` are the exceptions. If several are open, the one that ended last is retried first.

    Args:
        group_hash: the column of int_payment_intents_keyed that names the group.
        earlier: models with stronger links. If one of them gave a PaymentIntent a predecessor (or a successor), this
            model does not give it another.
        gap_days, guest_gap_days: how many days after the last attempt a retry may begin. A merchant cannot charge a
            guest again: guests come back soon or not at all.
        finds_double_payments: also link a second payment of an order that began before the first one was complete. If
            several PaymentIntents of an order have no predecessor, they are parts of the order. has_equals is then
            true, although they are no equal subscriptions.
#}
{% macro link_retries(group_hash, earlier, gap_days, guest_gap_days, finds_double_payments=false) -%}
{% set day = 86400 %}
{% set largest_compared = 5000 %}
{% set spread = 'case when is_monthly then spread_of_months else spread end' %}

{# A PaymentIntent that failed and was paid later may have been paid a second time by another one. #}
{% set may_be_followed = 'is_open or has_failed' if finds_double_payments else 'is_open' %}

{% set groups_of_changed %}
    select {{ group_hash }} from {{ ref('int_payment_intents_keyed') }}
    where {{ in_changed_payment_intents(ref('int_payment_intents_keyed'), models=['int_payment_intents_keyed'] + earlier) }}
    union
    select group_hash from {{ this }}
    where {{ in_changed_payment_intents(this, models=['int_payment_intents_keyed'] + earlier) }}
{% endset %}

with {% if is_incremental() %}
    changed_groups as (

        {{ groups_of_changed }}

    ),
{% endif %}

linked_earlier as (

    {% for model in earlier %}
        select
            account_id,
            livemode,
            payment_intent_id,
            predecessor_id
        from {{ ref(model) }}
        where predecessor_id is not null
        union all
    {% endfor %}
    select
        cast(null as varchar) as account_id,
        cast(null as boolean) as livemode,
        cast(null as varchar) as payment_intent_id,
        cast(null as varchar) as predecessor_id
    where false

),

keyed as (

    select
        account_id,
        livemode,
        payment_intent_id,
        customer_id,
        order_name,
        order_key,
        {{ group_hash }} as group_hash,
        has_failed,
        is_paid,
        is_open,
        {{ seconds_since_1970('created_at') }} as created,
        {{ seconds_since_1970('started_at') }} as started,
        {{ seconds_since_1970("started_at + interval '1 month'") }} as started_plus_1,
        {{ seconds_since_1970("started_at + interval '2 months'") }} as started_plus_2,
        {{ seconds_since_1970("started_at - interval '1 month'") }} as started_minus_1,
        {{ seconds_since_1970("started_at - interval '2 months'") }} as started_minus_2,
        {{ seconds_since_1970('ended_at') }} as ended,
        {{ seconds_since_1970('first_failed_at') }} as failed,
        {{ seconds_since_1970('paid_at') }} as paid
    from {{ ref('int_payment_intents_keyed') }}
    where
        {{ group_hash }} is not null
        {% if is_incremental() %}
            and {{ by_rowid(ref('int_payment_intents_keyed'), group_hash ~ ' in (select * from changed_groups)') }}
        {% else %}
            -- Most groups have no PaymentIntent to follow. Leave them out before sorting.
            and {{ group_hash }} in (
                select {{ group_hash }} from {{ ref('int_payment_intents_keyed') }}
                where {{ may_be_followed }}
            )
        {% endif %}

),

candidates as (

    select
        keyed.*,
        keyed.is_open and followed.predecessor_id is null as is_free,
        following.payment_intent_id is null as may_follow,
        count(*) over (partition by keyed.group_hash) as member_count,
        bool_or({{ may_be_followed }}) over (partition by keyed.group_hash) as has_open
    from keyed
    left join (
        select distinct
            account_id,
            livemode,
            predecessor_id
        from linked_earlier
    ) as followed
        on
            keyed.account_id = followed.account_id
            and keyed.livemode = followed.livemode
            and keyed.payment_intent_id = followed.predecessor_id
    left join linked_earlier as following
        on
            keyed.account_id = following.account_id
            and keyed.livemode = following.livemode
            and keyed.payment_intent_id = following.payment_intent_id

),

timed as (

    select
        * exclude (has_open),
        row_number() over (
            partition by group_hash, is_open order by ended, payment_intent_id
        ) as open_number,
        lag(started) over by_start as previous_started,
        lead(started) over by_start as next_started,
        coalesce(lead(is_paid and not has_failed) over by_start, false) as is_next_paid_at_once,
        coalesce(lag(is_open) over by_start, false) as is_after_open,
        max(case when is_open then ended end) over (
            partition by group_hash order by started, payment_intent_id
            rows between unbounded preceding and current row
        ) as last_open_ended
    from candidates
    where member_count > 1 and has_open
    window by_start as (partition by group_hash order by started, payment_intent_id)

),

compared as (

    select
        *,
        bool_or(
            is_paid and not has_failed and is_next_paid_at_once and next_started - started <= {{ equal_payment_seconds() }}
        ) over (partition by group_hash) as has_equals
    from timed

),

members as {{ materialized() }} (

    select
        *,
        {{ pause_before_retry('has_equals') }} as pause_seconds
    from compared

),

-- The times between a payment that succeeded at once and the next PaymentIntent show how often a customer pays this
-- price. Two kinds do not count. Payments within hours belong to one visit, or to equal subscriptions. And a payment
-- after an open PaymentIntent may be its retry, if it began within hours of it, or if it is the next one and does not
-- keep the same time to the one before and after it.
gaps as (

    select
        group_hash,
        member_count,
        next_started - started as gap,
        abs(next_started - started_plus_1) as distance_from_month
    from members
    where
        is_paid
        and not has_failed
        and next_started - started >= {{ visit_seconds() }}
        and coalesce(last_open_ended < started - {{ visit_seconds() }}, true)
        and (
            not is_after_open
            or abs((next_started - started) - (started - previous_started)) <= (next_started - started) / 24.0
        )

),

intervals as (

    select
        group_hash,
        member_count,
        count(*) as gap_count,
        median(gap) as interval_seconds
    from gaps
    group by group_hash, member_count

),

spreads as (

    select
        intervals.group_hash,
        intervals.member_count,
        intervals.gap_count,
        intervals.interval_seconds,
        median(abs(gaps.gap - intervals.interval_seconds)) as spread,
        median(gaps.distance_from_month) as spread_of_months
    from intervals
    inner join gaps on intervals.group_hash = gaps.group_hash
    group by intervals.group_hash, intervals.member_count, intervals.gap_count, intervals.interval_seconds

),

-- Months have 28 to 31 days. Payments on the same day of each month have no spread if intervals are counted in months.
counted_by as (

    select
        *,
        interval_seconds between 27.5 * {{ day }} and 31.5 * {{ day }}
        and spread_of_months <= spread + {{ day // 2 }} as is_monthly
    from spreads

),

-- Payments are due within the tolerance of the rhythm. A rhythm also needs a gap for at most fifty PaymentIntents. In a
-- group of thousands too many would be compared with each other.
rhythms as (

    select
        group_hash,
        gap_count,
        interval_seconds,
        is_monthly,
        {{ rhythm_tolerance('gap_count', 'interval_seconds', spread) }} as tolerance,
        {{ is_rhythm_regular('interval_seconds', spread) }}
        and member_count <= 50 * (gap_count + 1)
        and member_count <= {{ largest_compared }} as is_regular
    from counted_by

),

starts_and_ends as (

    select
        group_hash,
        payment_intent_id,
        ended + pause_seconds as happened,
        0 as is_start,
        1 as is_end
    from members
    where is_open
    union all
    select
        group_hash,
        payment_intent_id,
        started as happened,
        1 as is_start,
        0 as is_end
    from members

),

-- How many open PaymentIntents had ended before each start. That is the open_number of the one that ended last.
ends_counted as (

    select
        group_hash,
        payment_intent_id,
        is_start,
        sum(is_end) over (
            partition by group_hash order by happened, is_start, payment_intent_id
            rows between unbounded preceding and current row
        ) as open_count
    from starts_and_ends

),

-- The open PaymentIntent that ended last before another one began, if that one may follow it. This is a join of its
-- own, since DuckDB compares each row with each if a left join has conditions such as these.
nearest_open as (

    select
        members.group_hash,
        members.payment_intent_id,
        open_members.payment_intent_id as nearest_id
    from members
    inner join ends_counted
        on
            members.group_hash = ends_counted.group_hash
            and members.payment_intent_id = ends_counted.payment_intent_id
            and ends_counted.is_start = 1
    inner join members as open_members
        on
            members.group_hash = open_members.group_hash
            and open_members.is_open
            and ends_counted.open_count = open_members.open_number
    left join rhythms on members.group_hash = rhythms.group_hash
    where {{ follows('members', 'open_members', gap_days, guest_gap_days) }}

),

nearest as {{ materialized() }} (

    select
        members.*,
        nearest_open.nearest_id
    from members
    left join nearest_open
        on
            members.group_hash = nearest_open.group_hash
            and members.payment_intent_id = nearest_open.payment_intent_id

),

-- When payments are due: one or two intervals before and after each PaymentIntent that follows none.
due as (

    {% for step in [1, -1, 2, -2] %}
        select
            nearest.group_hash,
            nearest.payment_intent_id,
            {{ loop.index }} as precedence,
            rhythms.tolerance,
            case
                when rhythms.is_monthly then nearest.started_{{ 'plus' if step > 0 else 'minus' }}_{{ step | abs }}
                else nearest.started + {{ step }} * rhythms.interval_seconds
            end as due
        from nearest
        inner join rhythms on nearest.group_hash = rhythms.group_hash and rhythms.is_regular
        where nearest.nearest_id is null
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

-- How many payments are due at the time of each PaymentIntent that may be a retry. Each step counts by itself, and the
-- step with the most counts: otherwise the payments of two cycles would make twice as many due.
due_nearby as (

    select
        nearest.group_hash,
        nearest.payment_intent_id,
        nearest.started,
        due.precedence,
        count(*) as due_count,
        min(due.due) - max(due.tolerance) as earliest,
        max(due.due) + max(due.tolerance) as latest,
        row_number() over (
            partition by nearest.group_hash, nearest.payment_intent_id order by count(*) desc, due.precedence
        ) as precedence_number
    from nearest
    inner join due
        on
            nearest.group_hash = due.group_hash
            and due.due between nearest.started - due.tolerance and nearest.started + due.tolerance
    where nearest.nearest_id is not null
    group by nearest.group_hash, nearest.payment_intent_id, nearest.started, due.precedence

),

dues as {{ materialized() }} (

    select * from due_nearby
    where precedence_number = 1

),

-- A PaymentIntent is scheduled if fewer than are due began at that time: those that follow none, and candidates that
-- began before it. The others are retries.
scheduled as (

    select
        dues.group_hash,
        dues.payment_intent_id
    from dues
    left join nearest as others
        on
            dues.group_hash = others.group_hash
            and dues.payment_intent_id <> others.payment_intent_id
            and others.started between dues.earliest and dues.latest
    left join dues as other_dues
        on
            others.group_hash = other_dues.group_hash
            and others.payment_intent_id = other_dues.payment_intent_id
    group by dues.group_hash, dues.payment_intent_id, dues.due_count
    having
        dues.due_count > sum(
            case
                when others.payment_intent_id is null then 0
                when others.nearest_id is null then 1
                when
                    other_dues.payment_intent_id is not null
                    and (
                        others.started < dues.started
                        or (others.started = dues.started and others.payment_intent_id < dues.payment_intent_id)
                    )
                    then 1
                else 0
            end
        )

),

retries as {{ materialized() }} (

    select nearest.*
    from nearest
    left join scheduled
        on
            nearest.group_hash = scheduled.group_hash
            and nearest.payment_intent_id = scheduled.payment_intent_id
    where nearest.nearest_id is not null and scheduled.payment_intent_id is null

),

-- The open PaymentIntent that ended last is retried first. So they pair like brackets: each end opens one, and each
-- retry closes the last one that is still open.
brackets as (

    select
        group_hash,
        payment_intent_id,
        ended + pause_seconds as happened,
        1 as change
    from members
    where is_free
    union all
    select
        group_hash,
        payment_intent_id,
        started as happened,
        -1 as change
    from retries
    where may_follow

),

summed as (

    select
        *,
        sum(change) over (
            partition by group_hash order by happened, change desc, payment_intent_id
            rows between unbounded preceding and current row
        ) as balance
    from brackets

),

-- A retry that finds no open bracket does not count: the lowest balance so far is depth 0.
levelled as (

    select
        *,
        balance - least(
            0, min(balance) over (
                partition by group_hash order by happened, change desc, payment_intent_id
                rows between unbounded preceding and current row
            )
        ) as depth,
        least(
            0, min(balance) over (
                partition by group_hash order by happened, change desc, payment_intent_id
                rows between unbounded preceding and 1 preceding
            )
        ) as lowest_before
    from summed

),

-- A bracket and the one that closes it have the same depth, and the same number at that depth.
numbered as (

    select
        group_hash,
        payment_intent_id,
        change,
        case when change = 1 then depth else depth + 1 end as depth,
        row_number() over (
            partition by group_hash, change, case when change = 1 then depth else depth + 1 end
            order by happened, payment_intent_id
        ) as number_of_depth
    from levelled
    where change = 1 or balance + 1 > coalesce(lowest_before, 0)

),

matched as {{ materialized() }} (

    select
        closing.group_hash,
        closing.payment_intent_id,
        opening.payment_intent_id as predecessor_id
    from numbered as closing
    inner join numbered as opening
        on
            closing.group_hash = opening.group_hash
            and closing.depth = opening.depth
            and closing.number_of_depth = opening.number_of_depth
            and opening.change = 1
    inner join retries
        on
            closing.group_hash = retries.group_hash
            and closing.payment_intent_id = retries.payment_intent_id
    inner join members as open_members
        on
            opening.group_hash = open_members.group_hash
            and opening.payment_intent_id = open_members.payment_intent_id
    left join rhythms on closing.group_hash = rhythms.group_hash
    where
        closing.change = -1
        and {{ follows('retries', 'open_members', gap_days, guest_gap_days) }}

),

-- A retry that failed beside another retry of the same debt, such as with another card: the PaymentIntent that it
-- follows has another successor, and it has none.
extra_retries as (

    select
        retries.group_hash,
        retries.payment_intent_id,
        retries.nearest_id as predecessor_id
    from retries
    left join matched
        on
            retries.group_hash = matched.group_hash
            and retries.payment_intent_id = matched.payment_intent_id
    left join matched as followed
        on
            retries.group_hash = followed.group_hash
            and retries.payment_intent_id = followed.predecessor_id
    where
        retries.is_free
        and retries.may_follow
        and matched.payment_intent_id is null
        and followed.predecessor_id is null

),

{% if finds_double_payments %}
    -- Payments that began after an attempt of the order had failed, and before another PaymentIntent paid the order.
    double_payments as (

        select
            members.group_hash,
            members.payment_intent_id,
            min(failed_members.payment_intent_id) as predecessor_id
        from members
        inner join members as failed_members
            on
                members.group_hash = failed_members.group_hash
                and members.payment_intent_id <> failed_members.payment_intent_id
                and members.created > failed_members.failed
                and members.started >= failed_members.failed + failed_members.pause_seconds
        left join matched as followed
            on
                failed_members.group_hash = followed.group_hash
                and failed_members.payment_intent_id = followed.predecessor_id
        left join members as successors
            on
                followed.group_hash = successors.group_hash
                and followed.payment_intent_id = successors.payment_intent_id
        left join matched
            on
                members.group_hash = matched.group_hash
                and members.payment_intent_id = matched.payment_intent_id
        where
            members.is_paid
            and members.may_follow
            and members.member_count <= {{ largest_compared }}
            and matched.payment_intent_id is null
            and members.started <= coalesce(failed_members.paid, successors.paid)
        group by members.group_hash, members.payment_intent_id

    ),
{% endif %}

links as (

    select * from matched
    union all
    select * from extra_retries
    {% if finds_double_payments %}
        union all
        select * from double_payments
    {% endif %}

),

final as (

    select
        -- ids
        members.account_id,
        members.livemode,
        members.payment_intent_id,
        members.group_hash,
        links.predecessor_id,

        -- numerics
        rhythms.interval_seconds,
        coalesce(rhythms.gap_count, 0) as gap_count,

        -- booleans
        coalesce(rhythms.is_regular, false) as is_regular,
        {% if finds_double_payments %}
            sum(case when links.predecessor_id is null then 1 else 0 end) over (partition by members.group_hash) > 1
        {% else %}
            members.has_equals
        {% endif %}
        as has_equals,

        -- the load
        {{ build_id() }} as _load_id
    from members
    left join links
        on
            members.group_hash = links.group_hash
            and members.payment_intent_id = links.payment_intent_id
    left join rhythms on members.group_hash = rhythms.group_hash

    -- Members of groups in which nothing can be linked any more lose their rows.
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
        where
            existing.group_hash in (select * from changed_groups)
            and members.payment_intent_id is null
    {% endif %}

)

select * from final
{%- endmacro %}

{# True if the PaymentIntent `later` may be a retry of the open PaymentIntent `open`. #}
{% macro follows(later, open, gap_days, guest_gap_days) -%}
    (
        {{ later }}.created > {{ open }}.ended
        and {{ later }}.started <= {{ open }}.ended + case
            when {{ open }}.customer_id is null then {{ guest_gap_days * 86400 }}
            -- Retries may come until the next payment is due.
            when rhythms.is_regular and rhythms.gap_count >= {{ rhythm_gap_count() }} then {{ 400 * 86400 }}
            -- A customer who often pays this price, at no regular interval, probably buys again instead of retrying.
            when rhythms.gap_count >= {{ rhythm_gap_count() }}
                then least({{ gap_days * 86400 }}, {{ soon_after('rhythms.interval_seconds') }})
            else {{ gap_days * 86400 }}
        end
        and not coalesce(
            case
                when not rhythms.is_regular then false
                when rhythms.gap_count >= 2
                    then {{ later }}.started >= {{ open }}.started + rhythms.interval_seconds - rhythms.tolerance
                else
                    abs({{ later }}.started - {{ open }}.started - rhythms.interval_seconds) <= rhythms.tolerance
            end,
            false
        )
        and not coalesce(
            {{ later }}.order_name = {{ open }}.order_name and {{ later }}.order_key <> {{ open }}.order_key, false
        )
    )
{%- endmacro %}

{# Make DuckDB compute a common table expression once instead of once for each use. #}
{% macro materialized() -%}
    materialized
{%- endmacro %}

{# A TIMESTAMP as Unix seconds. #}
{% macro seconds_since_1970(timestamp) -%}
    date_diff('second', timestamp '1970-01-01', {{ timestamp }})
{%- endmacro %}
