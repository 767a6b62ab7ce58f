{#
    The status of a failed payment at the watermark. The first matching rule decides, so each payment has exactly one
    status.
#}
{% macro recovery_status(succeeded_at, is_canceled) -%}
    case
        when {{ succeeded_at }} <= window_ends_at then 'recovered'
        when {{ succeeded_at }} is not null then 'recovered_late'
        when {{ is_canceled }} then 'lost_canceled'
        when window_ends_at <= data_through_at then 'lost_expired'
        else 'in_recovery'
    end
{%- endmacro %}
