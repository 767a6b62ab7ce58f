{#
    The rows that a test reads. In a plan: the rows that are new since the last complete build, which tested all others,
    and the rows that new ones may contradict. If dbt runs the tests: all rows.
#}

{# True for rows of an incremental model that no complete build has tested. True for all rows if dbt runs the tests. #}
{% macro is_untested(relation='') -%}
    {{ (relation ~ '.' if relation) ~ '_load_id >= ' ~ first_load_id() if checked_var('is_plan') else 'true' }}
{%- endmacro %}

{# Replaces dbt's macro: the subquery that a generic test reads as `model`. #}
{% macro duckdb__get_where_subquery(relation) -%}
    {%- set conditions = [config.get('where')] if config.get('where') else [] -%}
    {%- if is_incremental_tested() -%}
        {%- do conditions.append(is_untested()) -%}
    {%- endif -%}
    {%- if conditions -%}
        {{ return('(select * from ' ~ relation ~ ' where ' ~ conditions | join(' and ') ~ ') dbt_subquery') }}
    {%- endif -%}
    {{ return(relation) }}
{%- endmacro %}

{# The relation of the model that a generic test belongs to, with all rows. #}
{% macro tested_relation() -%}
    {{ return(graph.nodes[model.attached_node].relation_name) }}
{%- endmacro %}

{# True if a generic test belongs to an incremental model and is compiled for a plan. #}
{% macro is_incremental_tested() -%}
    {%- set node = graph.nodes.get(model.attached_node) if execute else none -%}
    {{ return(node is not none and node.config.materialized == 'incremental' and checked_var('is_plan')) }}
{%- endmacro %}
