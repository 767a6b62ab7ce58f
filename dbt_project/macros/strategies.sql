{#
    How an incremental model replaces rows. Both strategies give the same result if they run again for the same loads.

    unique_key names what a build rewrites together: all rows of a key are deleted and inserted again. It need not be
    unique, unlike the unique_key of dbt's own merge strategy. A charge has one row, so its key is the row's. A
    PaymentIntent has many attempts, so a build rewrites all attempts of a PaymentIntent, and one that is gone
    disappears. What identifies a row is in the test unique_combination_of_columns of each model.

    replace_keys: delete the rows whose unique_key is among the new rows, then insert the new rows. So a build must
    produce all rows of each key that it writes. A new row that meets the condition in `meta.tombstone` only deletes; it
    is not inserted.
    replace_loads: delete the rows of the loads that this build takes, then insert them again. For append-only raw
    tables, which have no unique_key.
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
