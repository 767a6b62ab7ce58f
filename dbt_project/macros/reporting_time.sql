{# An instant (TIMESTAMP, UTC) on the clocks of the reporting time zone, whatever the session's is; summer time included. #}
{% macro reporting_time(instant) -%}
    timezone('{{ var("reporting_time_zone") }}', timezone('UTC', {{ instant }}))
{%- endmacro %}

{% macro reporting_date(instant) -%}
    cast({{ reporting_time(instant) }} as date)
{%- endmacro %}
