{# An amount in minor units. What can be no amount of Stripe's (it has twelve digits at most, and no sign) is null, never
    an error: sums of such amounts fit into a bigint. #}
{% macro stripe_amount(column) -%}
    case when {{ column }} between 0 and 999999999999 then {{ column }} end
{%- endmacro %}
