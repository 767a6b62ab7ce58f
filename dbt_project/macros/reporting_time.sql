{#
    A UTC TIMESTAMP as local time in the reporting time zone, with daylight saving time, in any session time zone. UTC
    is not converted: the conversion would double the time of a sum over attempts.
#}
{% macro reporting_time(instant) -%}
    {%- if checked_var('reporting_time_zone') == 'UTC' -%}
        {{ instant }}
    {%- else -%}
        timezone('{{ checked_var("reporting_time_zone") }}', timezone('UTC', {{ instant }}))
    {%- endif -%}
{%- endmacro %}

{# The day of a UTC TIMESTAMP in the reporting time zone. #}
{% macro reporting_date(instant) -%}
    cast({{ reporting_time(instant) }} as date)
{%- endmacro %}

{# The UTC TIMESTAMP at which a day begins in the reporting time zone. #}
{% macro start_of_reporting_date(day) -%}
    {%- if checked_var('reporting_time_zone') == 'UTC' -%}
        cast({{ day }} as timestamp)
    {%- else -%}
        timezone('UTC', timezone('{{ checked_var("reporting_time_zone") }}', cast({{ day }} as timestamp)))
    {%- endif -%}
{%- endmacro %}
