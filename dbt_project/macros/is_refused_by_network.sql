{#
    True for attempts that count towards a network's limits: the network did not approve them, and Stripe did not refuse
    them.
#}
{% macro is_refused_by_network(relation=none) -%}
    {%- set prefix = relation ~ '.' if relation else '' -%}
    (
        {{ prefix }}outcome not in ('succeeded', 'authorized', 'blocked')
        and coalesce({{ prefix }}failure_class not in ('predicted_decline', 'verification_failed'), true)
    )
{%- endmacro %}
