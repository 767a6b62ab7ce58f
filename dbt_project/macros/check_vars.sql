{# Vars that are wrong are told in a sentence, by the first model on which all marts rest. #}
{% macro check_vars() -%}
    {%- if execute -%}
        {%- set zone = var('reporting_time_zone') -%}
        {%- set found = run_query("select count(*) from pg_timezone_names() where name = '" ~ zone ~ "'") -%}
        {%- if not found.columns[0].values()[0] -%}
            {{ exceptions.raise_compiler_error(
                "var reporting_time_zone in dbt_project.yml is '" ~ zone ~ "'. Give the IANA name of a time zone, "
                ~ "such as Europe/Berlin."
            ) }}
        {%- endif -%}
        {%- if var('network_fee_region') not in ('', 'br', 'ca', 'europe', 'us') -%}
            {{ exceptions.raise_compiler_error(
                "var network_fee_region in dbt_project.yml is '" ~ var('network_fee_region') ~ "'. Known are br, ca, "
                ~ "europe and us, or leave it empty."
            ) }}
        {%- endif -%}
        {%- for name in [
            'recovery_window_days', 'link_gap_days', 'guest_link_gap_days', 'explicit_link_gap_days', 'link_span_days',
            'link_pause_seconds'
        ] -%}
            {%- if var(name) is not integer or var(name) < 0 -%}
                {{ exceptions.raise_compiler_error(
                    'var ' ~ name ~ " in dbt_project.yml is '" ~ var(name) ~ "'. Give a whole number, 0 or more, without quotes."
                ) }}
            {%- endif -%}
        {%- endfor -%}
        {%- if var('exclude_card_testing') is not boolean -%}
            {{ exceptions.raise_compiler_error(
                "var exclude_card_testing in dbt_project.yml is '" ~ var('exclude_card_testing') ~ "'. Give true or false, "
                ~ "without quotes."
            ) }}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}
