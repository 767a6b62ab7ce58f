{#
    The metadata keys that the vars name: keys with the order of a PaymentIntent, and keys that mark a merchant's own
    retry. Metadata may contain anything, so no other key is read. DuckDB needs at least one key.
#}
{% macro metadata_shape() -%}
    {% set shape = {} %}
    {% for name in checked_var('recovery_link_metadata_keys') + checked_var('recovery_retry_metadata_keys') %}
        {% do shape.update({name: 'varchar'}) %}
    {% endfor %}
    {{ return(shape or {'order_id': 'varchar'}) }}
{%- endmacro %}

{# True if the metadata have a value under one of the keys of var recovery_retry_metadata_keys. #}
{% macro is_tagged_as_retry(metadata) -%}
    coalesce(
        {% for name in checked_var('recovery_retry_metadata_keys') %}
            nullif(trim({{ metadata }}."{{ name }}"), ''),
        {% endfor %}
        null
    ) is not null
{%- endmacro %}
