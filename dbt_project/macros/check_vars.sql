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
    {%- endif -%}
{%- endmacro %}
