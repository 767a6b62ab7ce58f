{#
    What the merchant's metadata tell, under the names that the vars give: which order a PaymentIntent is for, and whether
    the merchant's own retries made it. Metadata hold anything; only these keys are read.
#}
{% macro metadata_shape() -%}
    {% set shape = {} %}
    {% for name in var('recovery_link_metadata_keys') + var('recovery_retry_metadata_keys') %}
        {% do shape.update({name: 'varchar'}) %}
    {% endfor %}
    {{ return(shape) }}
{%- endmacro %}

{% macro is_tagged_as_retry(metadata) -%}
    coalesce(
        {% for name in var('recovery_retry_metadata_keys') %}
            nullif(trim({{ metadata }}."{{ name }}"), ''),
        {% endfor %}
        null
    ) is not null
{%- endmacro %}
