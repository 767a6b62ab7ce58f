{# The id in a field that contains an id or, if Stripe expanded it, the whole object. #}
{% macro expandable_id(field) -%}
    case when starts_with({{ field }}, '{') then try({{ json_read(field, {'id': 'varchar'}) }}).id else {{ field }} end
{%- endmacro %}
