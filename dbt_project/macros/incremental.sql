{#
    Incremental models write only the rows of changed PaymentIntents again. `_load_id` is the number of the load or
    build that wrote the row; one sequence numbers both. The table sync.loads shows which loads no complete build has
    taken yet. All models of a build take the same loads, so a failed or partial build can be repeated without skipping
    a load. A full refresh reads everything with the same SQL.

    Most models need three of these macros: is_new_since_last_build or in_changed_payment_intents as the condition, and
    build_id for `_load_id`. The others are their parts, for models that find their rows in another way. macros.yml
    documents each macro with the SQL that it compiles to.

    Values that differ between builds are literals if dbt runs a model. In the compiled plan (var is_plan) they are
    variables of the DuckDB session, so that the plan's SQL is the same for each build.
#}

{#
    Replaces dbt's own macro: dbt compiles the plan without the warehouse, and would not find the tables that exist
    there. An ephemeral model is a part of the incremental model that its `meta.part_of` names, and is incremental if
    that model is.
#}
{% macro is_incremental() -%}
    {%- if checked_var('is_plan') -%}
        {{ return(model.config.materialized in ('incremental', 'ephemeral')) }}
    {%- elif model.config.materialized == 'ephemeral' -%}
        {{ return(execute and not should_full_refresh() and load_relation(api.Relation.create(
            database=model.database, schema=model.schema, identifier=model.config.meta.part_of
        )) is not none) }}
    {%- endif -%}
    {{ return(dbt.is_incremental()) }}
{%- endmacro %}

{#
    The result of a query as a literal; in a plan, the session variable `name`. 0 if the relation `needs` does not
    exist.
#}
{% macro build_value(name, query, needs=none) -%}
    {%- if checked_var('is_plan') -%}
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

{# A table of Recoup's ledger. It is not a source, since it holds no data of Stripe. #}
{% macro sync_table(name) -%}
    {{ return(api.Relation.create(database=target.database, schema='sync', identifier=name)) }}
{%- endmacro %}

{# True for rows of raw tables and models that are new since the last complete build; in a full build, for all rows. #}
{% macro is_new_since_last_build() -%}
    {{ '_load_id >= ' ~ first_load_id() if is_incremental() else 'true' }}
{%- endmacro %}

{#
    Keys of the PaymentIntents with new rows in one of these models. The limit is the number of new rows, so it drops
    none; a plan measures it after it has built the model. It is a hint: without it DuckDB expects a fifth of the table,
    and hashes the tables in which the keys are looked up.
#}
{% macro changed_payment_intents(models=['int_payment_intents_changed']) -%}
    {%- for model in models %}
        (
            select account_id, livemode, payment_intent_id from {{ ref(model) }}
            where {{ is_new_since_last_build() }}
            limit {{ build_value(
                'new_rows_of_' ~ model,
                'select count(*) from ' ~ ref(model) ~ ' where ' ~ is_new_since_last_build(),
                needs=ref(model)
            ) if is_incremental() else 0 }}
        )
        {{- ' union ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{#
    The oldest value of a timestamp column among a model's new rows. It is a value and not a subquery, because DuckDB
    estimates the number of remaining rows badly for a subquery. A plan measures the columns that the model names in
    `meta.measured`.
#}
{% macro oldest_new(model, column) -%}
    {%- if not execute -%}{%- do ref(model) -%}{%- endif -%}
    {%- if not is_incremental() -%}
        timestamp 'infinity'
    {%- elif checked_var('is_plan') -%}
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
    True for rows of changed PaymentIntents; in a full build, for all rows. `since` is a timestamp column that is never
    earlier than `begun_at`, the time of the PaymentIntent's oldest raw row. Tables are roughly ordered by time, so
    DuckDB skips rows that are older than all changed PaymentIntents.
#}
{% macro is_about_changed_payment_intents(since=none, models=['int_payment_intents_changed']) -%}
    {%- if is_incremental() -%}
        (account_id, livemode, payment_intent_id) in ({{ changed_payment_intents(models) }})
        {%- if since %}
            {#- One day, since clocks differ. #}
            and {{ since }} >= {{ oldest_new('int_payment_intents_changed', 'begun_at') }} - interval '1 day'
        {%- endif %}
    {%- else -%}
        {%- if not execute -%}
            {%- for model in models -%}{%- do ref(model) -%}{%- endfor -%}
        {%- endif -%}
        true
    {%- endif -%}
{%- endmacro %}

{# The same condition by row id, so that DuckDB reads only the matching rows of the table. #}
{% macro in_changed_payment_intents(table, since=none, models=['int_payment_intents_changed']) -%}
    {%- set condition = is_about_changed_payment_intents(since, models) -%}
    {{ by_rowid(table, condition) if is_incremental() else condition }}
{%- endmacro %}

{#
    True for rows that meet a condition on a few columns. DuckDB then reads the other columns for these rows only, and
    does not hash the whole table for a few keys. For 2 million rows of fifty columns this takes 0.05 s; the plain
    condition takes up to 1.2 s.
#}
{% macro by_rowid(table, condition) -%}
    rowid in (select rowid from {{ table }} where {{ condition }})
{%- endmacro %}

{# Order by time in a full build, which makes scans of later builds faster. #}
{% macro in_time_order(column) -%}
    {{ '' if is_incremental() else 'order by ' ~ column }}
{%- endmacro %}
