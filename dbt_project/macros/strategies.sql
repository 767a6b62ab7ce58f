{#
    How an incremental model replaces rows. Both strategies can be repeated for the same loads with the same result.

    replace_keys: delete the rows that have a key (unique_key) of the new ones, then insert those. A new row that meets
    the condition in `meta.tombstone` is not inserted: it only deletes.
    replace_loads: delete the rows of the loads that this build takes, then insert those. For append-only raw tables.
#}
{% macro get_incremental_replace_keys_sql(arg_dict) -%}
    {%- set keys = arg_dict['unique_key'] | join(', ') -%}
    {%- set tombstone = config.get('meta', {}).get('tombstone') -%}
    delete from {{ arg_dict['target_relation'] }}
    where ({{ keys }}) in (select {{ keys }} from {{ arg_dict['temp_relation'] }});
    insert into {{ arg_dict['target_relation'] }} by name
    from {{ arg_dict['temp_relation'] }}
    {{ 'where (' ~ tombstone ~ ') is not true' if tombstone }};
{%- endmacro %}

{% macro get_incremental_replace_loads_sql(arg_dict) -%}
    delete from {{ arg_dict['target_relation'] }} where _load_id >= {{ first_load_id() }};
    insert into {{ arg_dict['target_relation'] }} by name
    from {{ arg_dict['temp_relation'] }};
{%- endmacro %}
