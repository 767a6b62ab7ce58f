{#
    The metadata keys that the vars name: keys with the order of a PaymentIntent, keys that mark a merchant's own retry,
    the key with the arm of an experiment, and keys to publish. Metadata may contain anything, so no other key is read.
    DuckDB needs at least one key.
#}
{% macro metadata_shape() -%}
    {% set shape, spellings = {}, {} %}
    {% set arm_key = checked_var('experiment_metadata_key') %}
    {% for name in checked_var('recovery_link_metadata_keys') + checked_var('recovery_retry_metadata_keys')
        + checked_var('published_metadata_keys') + ([arm_key] if arm_key else []) %}
        {% if spellings.setdefault(name.lower(), name) != name and execute %}
            {{ exceptions.raise_compiler_error(
                'The dbt vars name the metadata keys ' ~ spellings[name.lower()] ~ ' and ' ~ name
                ~ ', which differ only in case. Only one of them can be read.'
            ) }}
        {% endif %}
        {% do shape.update({spellings[name.lower()]: 'varchar'}) %}
    {% endfor %}
    {{ return(shape or {'order_id': 'varchar'}) }}
{%- endmacro %}

{# The metadata under the keys of var published_metadata_keys as a JSON object; null if none of them has a value. #}
{% macro published_metadata(metadata) -%}
    {%- set keys = checked_var('published_metadata_keys') -%}
    {%- if keys -%}
        nullif(cast(json_merge_patch('{}', json_object(
            {%- for name in keys -%}
                '{{ name }}', nullif({{ metadata }}."{{ name }}", ''){{ ', ' if not loop.last }}
            {%- endfor -%}
        )) as varchar), '{}')
    {%- else -%}
        cast(null as varchar)
    {%- endif -%}
{%- endmacro %}

{# The arm of an experiment that the metadata name under the key of var experiment_metadata_key. #}
{% macro experiment_arm(metadata) -%}
    {%- set key = checked_var('experiment_metadata_key') -%}
    {{ 'nullif(trim(' ~ metadata ~ '."' ~ key ~ '"), \'\')' if key else 'cast(null as varchar)' }}
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
