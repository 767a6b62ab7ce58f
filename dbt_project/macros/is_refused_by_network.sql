{# True of attempts that count towards a network's limits: not approved by it, and not refused by Stripe itself. #}
{% macro is_refused_by_network(relation=none) -%}
    {%- set prefix = relation ~ '.' if relation else '' -%}
    (
        {{ prefix }}outcome not in ('succeeded', 'authorized', 'blocked')
        and coalesce({{ prefix }}failure_class not in ('predicted_decline', 'verification_failed'), true)
    )
{%- endmacro %}
