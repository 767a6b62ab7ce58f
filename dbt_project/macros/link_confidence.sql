{#
    How often links of this kind are right, as measured (DECISIONLOG.md): exact, high, medium or low; null without a link.
    A customer whose rhythm is known from three gaps or more is certain not to owe the next payment yet.
#}
{% macro link_confidence() -%}
    case
        when link_tier is null then null
        when link_tier = 'order' then 'exact'
        when gap_count >= 3 then 'high'
        when link_tier = 'order_part' or seconds_since_predecessor <= {{ 86400 }} then 'high'
        else 'medium'
    end
{%- endmacro %}
