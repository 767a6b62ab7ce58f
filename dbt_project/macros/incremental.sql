{#
    Incremental models write anew the rows of what was touched, and nothing else. Every row says in `_load_id` with
    which load of the raw tables it was written; a model takes from those that it reads what is newer than its own
    newest row. So any of them can be built again at any time, by itself, after a failure, or in full. In full, or for
    the first time, they read everything, by the same SQL.
#}

{# The number of the newest load of which a relation holds anything; 0 where there is no such relation yet. #}
{% macro newest_load_id(relation) -%}
    {%- if execute and load_relation(relation) is not none -%}
        {{ return(run_query('select coalesce(max(_load_id), 0) from ' ~ relation).columns[0].values()[0] | int) }}
    {%- endif -%}
    {{ return(0) }}
{%- endmacro %}

{# The newest load that this model has taken; 0 in full, also where its table is of a release that had no loads. #}
{% macro built_load_id() -%}
    {{ return(newest_load_id(this) if is_incremental() else 0) }}
{%- endmacro %}

{# What a row is marked with when it is written: the load through which the tables are known. #}
{% macro load_id() -%}
    cast({{ newest_load_id(ref('int_payment_intents_touched')) }} as bigint)
{%- endmacro %}

{#
    The PaymentIntents of which one of these models has rows that are newer than this model's. How many rows those are is
    asked for before and stands as a limit, which leaves none of them out: DuckDB alone takes them for a fifth of the
    table, and would then rather hash the tables in which they are looked up.
#}
{% macro touched_payment_intents(models=['int_payment_intents_touched']) -%}
    {%- for model in models %}
        (
            select account_id, livemode, payment_intent_id from {{ ref(model) }}
            where {{ is_loaded_since() }}
            limit {{ loaded_count(model) }}
        )
        {{- ' union ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{# How many rows of a model were loaded since this model was built, for its incremental builds. #}
{% macro loaded_count(model) -%}
    {%- set count = 'select count(*) from ' ~ ref(model) ~ ' where ' ~ is_loaded_since() -%}
    {{- run_query(count).columns[0].values()[0] if execute and is_incremental() else 0 -}}
{%- endmacro %}

{#
    True of rows that are about those PaymentIntents; in full, of all. Where `since` is a column of instants that are never
    before the creation of the PaymentIntent, DuckDB passes over what is older than the oldest of the touched: tables lie
    about in the order of time.
#}
{% macro is_about_touched(since=none, models=['int_payment_intents_touched']) -%}
    {%- if is_incremental() -%}
        (account_id, livemode, payment_intent_id) in ({{ touched_payment_intents(models) }})
        {%- if since %}
            {#- A day for clocks that differ. #}
            and {{ since }} >= {{ oldest_loaded('int_payment_intents_touched', 'created_at') }} - interval '1 day'
        {%- endif %}
    {%- else -%}
        {%- if not execute -%}
            {%- for model in models -%}{%- do ref(model) -%}{%- endfor -%}
        {%- endif -%}
        true
    {%- endif -%}
{%- endmacro %}

{# The same of the rows of a table, which are found without reading the others. #}
{% macro is_touched(table, since=none, models=['int_payment_intents_touched']) -%}
    {%- set condition = is_about_touched(since, models) -%}
    {{ is_found(table, condition) if is_incremental() else condition }}
{%- endmacro %}

{#
    True of the rows of a table for which a condition holds that looks at few columns. DuckDB reads the other columns of
    these rows only, and never hashes the table for a few keys: at 2 million rows of fifty columns that is 0.05 s, where
    the bare condition takes up to 1.2 s.
#}
{% macro is_found(table, condition) -%}
    rowid in (select rowid from {{ table }} where {{ condition }})
{%- endmacro %}

{#
    What a column of instants is at least in the rows of a model that were loaded since this model was built, for its
    incremental builds. It is asked for before, and stands in the query as a literal: with a subquery in its place DuckDB
    misjudges how much is left.
#}
{% macro oldest_loaded(model, column) -%}
    {%- set known = 'coalesce(' ~ column ~ ", timestamp '1970-01-01')" -%}
    {%- set oldest = 'select cast(coalesce(min(' ~ known ~ "), timestamp 'infinity') as varchar) from " ~ ref(model)
        ~ ' where ' ~ is_loaded_since() -%}
    timestamp '{{ run_query(oldest).columns[0].values()[0] if execute and is_incremental() else 'infinity' }}'
{%- endmacro %}

{# In full, rows are written in the order of time, for the scans of later builds. #}
{% macro in_time_order(column) -%}
    {{ '' if is_incremental() else 'order by ' ~ column }}
{%- endmacro %}

{# True of the rows of a raw table that were loaded since this model was built; in full, of all. #}
{% macro is_loaded_since() -%}
    {{ '_load_id > ' ~ built_load_id() if is_incremental() else 'true' }}
{%- endmacro %}
