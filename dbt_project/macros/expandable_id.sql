{# The id in a field that Stripe renders as an id or, where it was asked to expand it, as the whole object. #}
{% macro expandable_id(field) -%}
    case when starts_with({{ field }}, '{') then try({{ json_read(field, {'id': 'varchar'}) }}).id else {{ field }} end
{%- endmacro %}
