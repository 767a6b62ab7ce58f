{#
    Hooks that record builds in the sync schema. Each dbt run inserts its number at the start, and the relations that it
    built at the end. Only the pipeline closes loads, after a complete build. These macros run no query of their own:
    dbt would open a transaction for it, and roll it back together with the hook.
#}
{% macro begin_build() -%}
{%- set is_building = flags.WHICH in ('build', 'run', 'seed', 'snapshot') -%}
    {%- do check_vars() -%}
    {%- if execute and is_building -%}
        insert into {{ sync_table('model_builds') }} (build_id, is_good, began_at, fingerprint)
        select
            nextval('sync.load_ids'), false, timestamp '{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S") }}',
            nullif('{{ checked_var("fingerprint") }}', '')
    {%- endif -%}
{%- endmacro %}

{# Record the relations that dbt has built. Publishing copies them whole, since dbt does not say which rows changed. #}
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
