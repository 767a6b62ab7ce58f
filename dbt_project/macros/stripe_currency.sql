{# A currency code in lowercase, as Stripe writes it; null if it is empty. #}
{% macro stripe_currency(column) -%}
    lower(nullif(trim({{ column }}), ''))
{%- endmacro %}
