{# A currency's code in small letters, as Stripe writes it, and null if there is none. #}
{% macro stripe_currency(column) -%}
    lower(nullif(trim({{ column }}), ''))
{%- endmacro %}
