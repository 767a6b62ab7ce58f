{#
    What the merchant's metadata tell, under the names that the vars give: which order a PaymentIntent is for, and whether
    the merchant's own retries made it. Metadata hold anything; only these keys are read. DuckDB wants one key at least.
#}
{% macro metadata_shape() -%}
    {% set shape = {} %}
    {% for name in checked_var('recovery_link_metadata_keys') + checked_var('recovery_retry_metadata_keys') %}
        {% do shape.update({name: 'varchar'}) %}
    {% endfor %}
    {{ return(shape or {'order_id': 'varchar'}) }}
{%- endmacro %}

{% macro is_tagged_as_retry(metadata) -%}
    coalesce(
        {% for name in checked_var('recovery_retry_metadata_keys') %}
            nullif(trim({{ metadata }}."{{ name }}"), ''),
        {% endfor %}
        null
    ) is not null
{%- endmacro %}
