{#
    Parse a JSON column once into a struct of the given shape, such as {'amount': 'bigint', 'outcome': {'type':
    'varchar'}}. A missing field, or one of another type, is null and never an error, since payloads may have any API
    version. No other macro reads JSON. Another engine needs its own implementation.
#}
{% macro json_read(column, shape) -%}
    {{ return(adapter.dispatch('json_read', 'recoup')(column, shape)) }}
{%- endmacro %}

{% macro duckdb__json_read(column, shape) -%}
    from_json({{ column }}, '{{ tojson(shape) }}')
{%- endmacro %}
