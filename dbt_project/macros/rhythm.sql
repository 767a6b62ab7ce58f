{#
    The rhythm of a payer: how often a customer, or the card of a guest, pays the same price. link_retries uses these
    rules to link retries, and int_next_purchases_counted to count purchases that they would have mistaken for retries.
    DECISIONLOG.md has the reason and the measured figures for each rule.
#}

{# Seconds between two payments that belong to one visit at most, so that they show no rhythm. #}
{% macro visit_seconds() -%}
    {{ return(6 * 3600) }}
{%- endmacro %}

{# Seconds between two payments that indicate equal subscriptions at most. #}
{% macro equal_payment_seconds() -%}
    {{ return(60) }}
{%- endmacro %}

{# The number of gaps between payments from which a rhythm is known. #}
{% macro rhythm_gap_count() -%}
    {{ return(3) }}
{%- endmacro %}

{#
    Seconds between a refusal and a retry, at least. A customer who pays twice within a minute has equal subscriptions.
    If the payment of one fails, payments of the others begin within that minute and are not retries. So the pause is
    longer.
#}
{% macro pause_before_retry(has_equals) -%}
    case
        when {{ has_equals }} then {{ [equal_payment_seconds(), checked_var('link_pause_seconds')] | max }}
        else {{ checked_var('link_pause_seconds') }}
    end
{%- endmacro %}

{# An eighth of the interval: a payment so soon after another one is not the payment of the next interval. #}
{% macro soon_after(interval) -%}
    {{ interval }} / 8.0
{%- endmacro %}

{# True if at least half of the gaps are within an eighth of the interval. `spread` is their median distance from it. #}
{% macro is_rhythm_regular(interval, spread) -%}
    {{ spread }} <= {{ soon_after(interval) }}
{%- endmacro %}

{#
    How long before and after its time a payment is due: three times the spread, and at least a 24th of the interval (a
    twelfth if few gaps are known, since these have little spread by chance), but at most a quarter.
#}
{% macro rhythm_tolerance(gap_count, interval, spread) -%}
    least(
        greatest({{ interval }} / case when {{ gap_count }} >= 4 then 24.0 else 12.0 end, 3 * {{ spread }}),
        {{ interval }} / 4.0
    )
{%- endmacro %}
