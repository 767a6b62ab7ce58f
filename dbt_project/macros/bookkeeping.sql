{#
    What every dbt run writes down in the warehouse: its number before it begins, and which relations it has built when it
    ends. Only the pipeline closes loads, once a build of all models is complete. Nothing is looked up here: dbt would begin a
    transaction for it, and roll the hook back with it.
#}
{% macro begin_build() -%}
{%- set is_building = flags.WHICH in ('build', 'run', 'seed', 'snapshot') -%}
    {%- if execute and is_building -%}
        insert into {{ sync_table('model_builds') }} (build_id, is_good, began_at, fingerprint)
        select
            nextval('sync.load_ids'), false, timestamp '{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S") }}',
            nullif('{{ var("fingerprint") }}', '')
    {%- endif -%}
{%- endmacro %}

{# Relations that dbt has built are published as a whole: dbt does not say which of their rows have changed. #}
{% macro end_build(results) -%}
    {%- if execute -%}
        {%- for result in results if result.node.resource_type in ('model', 'seed') and result.status == 'success' -%}
            {%- set schema, name = "'" ~ result.node.schema ~ "'", "'" ~ result.node.alias ~ "'" %}
            delete from {{ sync_table('model_tables') }} where table_schema = {{ schema }} and table_name = {{ name }};
            insert into {{ sync_table('model_tables') }}
            select {{ schema }}, {{ name }}, build_id, build_id, {{ result.node.config.unique_key or 'null' }}
            from {{ sync_table('next_build') }};
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}
