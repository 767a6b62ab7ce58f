{# An amount in minor units. Stripe's amounts have at most twelve digits and are never negative. Any other value is null,
    never an error, so that sums fit into a bigint. #}
{% macro stripe_amount(column) -%}
    case when {{ column }} between 0 and 999999999999 then {{ column }} end
{%- endmacro %}
