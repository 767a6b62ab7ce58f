{#
    The one place where JSON is read: a column is parsed once, into a struct of the given shape, such as
    {'amount': 'bigint', 'outcome': {'type': 'varchar'}}. What is missing or of another type is null, never an error:
    payloads come in any API version. Another engine gets an implementation of its own.
#}
{% macro json_read(column, shape) -%}
    {{ return(adapter.dispatch('json_read', 'recoup')(column, shape)) }}
{%- endmacro %}

{% macro duckdb__json_read(column, shape) -%}
    from_json({{ column }}, '{{ tojson(shape) }}')
{%- endmacro %}
