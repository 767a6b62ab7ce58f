{#
    An instant (TIMESTAMP, UTC) on the clocks of the reporting time zone, whatever the session's is; summer time included.
    UTC itself is left as it is: the way through a zone takes as long as all else in a sum over attempts.
#}
{% macro reporting_time(instant) -%}
    {%- if checked_var('reporting_time_zone') == 'UTC' -%}
        {{ instant }}
    {%- else -%}
        timezone('{{ checked_var("reporting_time_zone") }}', timezone('UTC', {{ instant }}))
    {%- endif -%}
{%- endmacro %}

{% macro reporting_date(instant) -%}
    cast({{ reporting_time(instant) }} as date)
{%- endmacro %}
