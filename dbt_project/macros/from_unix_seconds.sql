{#
    Unix seconds as a TIMESTAMP in UTC, in any session time zone. Values outside 1970 to 2242 (2**33) are null, never an
    error.
#}
{% macro from_unix_seconds(column) -%}
    case when {{ column }} between 0 and 8589934592 then make_timestamp({{ column }} * 1000000) end
{%- endmacro %}
