{# Stripe's integer seconds as a TIMESTAMP in UTC, whatever the session's time zone is. What can be no time of Stripe's
    (2**33 is the year 2242) is null, never an error. #}
{% macro from_unix_seconds(column) -%}
    case when {{ column }} between 0 and 8589934592 then make_timestamp({{ column }} * 1000000) end
{%- endmacro %}
