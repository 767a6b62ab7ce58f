{#
    Incremental models rewrite the rows of changed PaymentIntents and no others. Every row carries in `_load_id` the number
    of the load or build that wrote it: loads and builds are numbered by one sequence. The table sync.loads lists the
    loads that no complete build has taken yet, and all models of a build take the same ones. So a build of some models, or
    one that failed, can be repeated, and never moves a model past a load that it has not taken. A full refresh reads
    everything, by the same SQL.

    The values that differ between two builds are literals when dbt runs a model, and variables of the DuckDB session in
    the compiled plan (var is_plan), so that the plan's SQL is the same for each build.
#}

{# Replaces dbt's own macro: a plan is compiled apart from the warehouse, for tables that exist. #}
{% macro is_incremental() -%}
    {%- if var('is_plan') -%}
        {{ return(model.config.materialized == 'incremental') }}
    {%- endif -%}
    {{ return(dbt.is_incremental()) }}
{%- endmacro %}

{# The result of a query, as a literal; in a plan, the session's variable of this name. #}
{% macro build_value(name, query, needs=none) -%}
    {%- if var('is_plan') -%}
        getvariable('{{ name }}')
    {%- elif execute and load_relation(needs or sync_table('next_build')) is not none -%}
        {{ run_query(query).columns[0].values()[0] }}
    {%- else -%}
        0
    {%- endif -%}
{%- endmacro %}

{# The number of this build. #}
{% macro build_id() -%}
    cast({{ build_value('build_id', 'select coalesce(max(build_id), 0) from ' ~ sync_table('next_build')) }} as bigint)
{%- endmacro %}

{# The number of the oldest load, or of the oldest incomplete build, since the last complete build. #}
{% macro first_load_id() -%}
    {{ build_value('first_load_id', 'select coalesce(max(first_load_id), 0) from ' ~ sync_table('next_build')) }}
{%- endmacro %}

{# A table of Recoup's bookkeeping. It is no source: what a model reads there is no data. #}
{% macro sync_table(name) -%}
    {{ return(api.Relation.create(database=target.database, schema='sync', identifier=name)) }}
{%- endmacro %}

{# True of rows of raw tables and of models that are new since the last complete build; in full, of all. #}
{% macro is_new_since_last_build() -%}
    {{ '_load_id >= ' ~ first_load_id() if is_incremental() else 'true' }}
{%- endmacro %}

{#
    The PaymentIntents whose rows in one of these models are new. How many rows those are stands as a limit, which leaves
    none of them out: without it DuckDB estimates a fifth of the table, and hashes the tables in which they are looked up.
#}
{% macro changed_payment_intents(models=['int_payment_intents_touched']) -%}
    {%- for model in models %}
        (
            select account_id, livemode, payment_intent_id from {{ ref(model) }}
            where {{ is_new_since_last_build() }}
            limit {{ new_row_count(model) }}
        )
        {{- ' union ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{# How many rows of a model are new. A plan measures it once the model is built. #}
{% macro new_row_count(model) -%}
    {{- build_value(
        'new_rows_of_' ~ model,
        'select count(*) from ' ~ ref(model) ~ ' where ' ~ is_new_since_last_build(),
        needs=ref(model)
    ) if is_incremental() else 0 -}}
{%- endmacro %}

{#
    The least value of a column of instants in a model's new rows. It stands in the query as a value: with a subquery in its
    place DuckDB misjudges how much is left. A plan measures the columns that the model names in `meta.measured`.
#}
{% macro oldest_new(model, column) -%}
    {%- if not is_incremental() -%}
        timestamp 'infinity'
    {%- elif var('is_plan') -%}
        getvariable('oldest_{{ column }}_of_{{ model }}')
    {%- else -%}
        timestamp '{{ build_value(
            none, 'select cast(' ~ oldest(column) ~ ' as varchar) from ' ~ ref(model) ~ ' where '
            ~ is_new_since_last_build(), needs=ref(model)
        ) }}'
    {%- endif -%}
{%- endmacro %}

{% macro oldest(column) -%}
    coalesce(min(coalesce({{ column }}, timestamp '1970-01-01')), timestamp 'infinity')
{%- endmacro %}

{#
    True of rows about changed PaymentIntents; in full, of all. `since` is a column of instants that are never before the
    creation of the PaymentIntent: DuckDB then skips what is older than the oldest changed one, since tables lie about in
    the order of time.
#}
{% macro is_about_changed_payment_intents(since=none, models=['int_payment_intents_touched']) -%}
    {%- if is_incremental() -%}
        (account_id, livemode, payment_intent_id) in ({{ changed_payment_intents(models) }})
        {%- if since %}
            {#- A day for clocks that differ. #}
            and {{ since }} >= {{ oldest_new('int_payment_intents_touched', 'created_at') }} - interval '1 day'
        {%- endif %}
    {%- else -%}
        {%- if not execute -%}
            {%- for model in models -%}{%- do ref(model) -%}{%- endfor -%}
        {%- endif -%}
        true
    {%- endif -%}
{%- endmacro %}

{# The same for the rows of a table, found without reading the others. #}
{% macro in_changed_payment_intents(table, since=none, models=['int_payment_intents_touched']) -%}
    {%- set condition = is_about_changed_payment_intents(since, models) -%}
    {{ by_rowid(table, condition) if is_incremental() else condition }}
{%- endmacro %}

{#
    True of the rows of a table that meet a condition on few columns. DuckDB reads the other columns of these rows only,
    and never hashes the table for a few keys: at 2 million rows of fifty columns that takes 0.05 s, where the bare
    condition takes up to 1.2 s.
#}
{% macro by_rowid(table, condition) -%}
    rowid in (select rowid from {{ table }} where {{ condition }})
{%- endmacro %}

{# In full, rows are written in the order of time, for the scans of later builds. #}
{% macro in_time_order(column) -%}
    {{ '' if is_incremental() else 'order by ' ~ column }}
{%- endmacro %}
