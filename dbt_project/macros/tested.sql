{#
    What a test looks at. The pipeline tells through which load its last good build has tested the tables (var
    tested_load_id): what was written with a later one is tested, and what that may disagree with. By hand it is all rows.
#}

{# True of a row of an incremental model that the last good build has not tested. #}
{% macro is_untested(relation='') -%}
    {{ relation ~ '.' if relation }}_load_id > {{ var('tested_load_id') }}
{%- endmacro %}

{# What dbt puts in the place of `model` in a generic test. #}
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

{# The relation of the model that a generic test is about, all rows. #}
{% macro tested_relation() -%}
    {{ return(graph.nodes[model.attached_node].relation_name) }}
{%- endmacro %}

{% macro is_incremental_tested() -%}
    {%- set node = graph.nodes.get(model.attached_node) if execute else none -%}
    {{ return(node is not none and node.config.materialized == 'incremental' and var('tested_load_id') >= 0) }}
{%- endmacro %}
