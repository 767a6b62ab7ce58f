{#
    The rhythm of a payer: how often a customer, or the card of a guest, pays the same price. link_retries uses these
    rules to link retries, and int_next_purchases_counted to count purchases that they would have mistaken for retries.
    DECISIONLOG.md has the reason and the measured figures for each rule.
#}

{# The longest time in seconds between two payments of one visit. Such payments show no rhythm. #}
{% macro visit_seconds() -%}
    {{ return(6 * 3600) }}
{%- endmacro %}

{# The longest time in seconds between two payments that indicates equal subscriptions of one customer. #}
{% macro equal_payment_seconds() -%}
    {{ return(60) }}
{%- endmacro %}

{# The number of gaps between payments from which a rhythm is known. #}
{% macro rhythm_gap_count() -%}
    {{ return(3) }}
{%- endmacro %}

{#
    The shortest time in seconds between a refusal and its retry. A customer who pays twice within a minute has equal
    subscriptions. If the payment of one fails, payments of the others begin within that minute and are not retries. So
    the pause is then longer.
#}
{% macro pause_before_retry(has_equals) -%}
    case
        when {{ has_equals }} then {{ [equal_payment_seconds(), checked_var('link_pause_seconds')] | max }}
        else {{ checked_var('link_pause_seconds') }}
    end
{%- endmacro %}

{# An eighth of the interval. A payment that comes sooner after another one is not the next regular payment. #}
{% macro soon_after(interval) -%}
    {{ interval }} / 8.0
{%- endmacro %}

{# True if at least half of the gaps are within an eighth of the interval. `spread` is their median distance from it. #}
{% macro is_rhythm_regular(interval, spread) -%}
    {{ spread }} <= {{ soon_after(interval) }}
{%- endmacro %}

{#
    How long before and after its time a payment counts as due: three times the spread. At least a 24th of the interval,
    or a twelfth if fewer than four gaps are known, since few gaps may have little spread by chance. At most a quarter.
#}
{% macro rhythm_tolerance(gap_count, interval, spread) -%}
    least(
        greatest({{ interval }} / case when {{ gap_count }} >= 4 then 24.0 else 12.0 end, 3 * {{ spread }}),
        {{ interval }} / 4.0
    )
{%- endmacro %}
