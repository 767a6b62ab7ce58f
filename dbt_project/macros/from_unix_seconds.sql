{# Stripe's integer seconds as a TIMESTAMP in UTC, whatever the session's time zone is. #}
{% macro from_unix_seconds(column) -%}
    make_timestamp({{ column }} * 1000000)
{%- endmacro %}
