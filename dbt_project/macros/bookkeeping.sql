{#
    Hooks that keep the ledger. Every dbt run enters its number before it begins, and the relations that it built when it
    ends. Only the pipeline closes loads, after a complete build. These macros run no query: dbt would begin a transaction for
    it, and roll it back together with the hook.
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

{# Relations that dbt has built are published as a whole, since dbt does not say which of their rows changed. #}
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
