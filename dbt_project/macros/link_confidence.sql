{#
    How often links of this kind were right in simulated shops: exact (99.5 % or more), high (98 %), medium (90 %) or
    low; null without a link. DECISIONLOG.md has the figures for each line; tests/bench/links.py measures them.
#}
{% macro link_confidence() -%}
    {% set hour = 3600 %}
    {% set soon = 20 * hour %}
    case
        when link_tier is null then null
        -- A person who tests stolen cards owes nothing.
        when is_card_testing then 'low'
        -- Links between equal parts of an order are more often right than those between equal subscriptions: retries
        -- come sooner.
        when link_tier = 'order' then case when has_equals then 'medium' else 'exact' end
        when link_tier = 'order_part' then 'high'
        when has_equals then 'low'
        when customer_id is null
            then
                case
                    when seconds_since_predecessor < {{ hour }} then 'high'
                    when seconds_since_predecessor < {{ soon }} then 'medium'
                    else 'low'
                end
        -- If three or more gaps are known, the customer's next regular payment is not due yet.
        when gap_count >= 3 or seconds_since_predecessor < {{ soon }} then 'high'
        else 'medium'
    end
{%- endmacro %}
