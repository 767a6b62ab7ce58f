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

{# The PaymentIntents of which one of these models has rows that are newer than this model's. #}
{% macro touched_payment_intents(models=['int_payment_intents_touched']) -%}
    {%- for model in models %}
        select account_id, livemode, payment_intent_id from {{ ref(model) }}
        where _load_id > {{ built_load_id() }}
        {{- ' union ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{#
    True of the rows of those PaymentIntents; in full, of all. Where `since` is a column of instants that are never before
    the creation of the PaymentIntent, DuckDB passes over what is older than the oldest of the touched: tables lie about in
    the order of time.
#}
{% macro is_touched(models=['int_payment_intents_touched'], since=none) -%}
    {%- if is_incremental() -%}
        (account_id, livemode, payment_intent_id) in ({{ touched_payment_intents(models) }})
        {%- if since %} and {{ since }} >= {{ oldest_touched() }}{% endif %}
    {%- else -%}
        {%- if not execute -%}
            {%- for model in models -%}{%- do ref(model) -%}{%- endfor -%}
        {%- endif -%}
        true
    {%- endif -%}
{%- endmacro %}

{# The creation of the oldest touched PaymentIntent, less a day for clocks that differ; the epoch if one is not known. #}
{% macro oldest_touched() -%}
    (
        select coalesce(min(coalesce(created_at, timestamp '1970-01-02')), timestamp '1970-01-02') - interval '1 day'
        from {{ ref('int_payment_intents_touched') }} where _load_id > {{ built_load_id() }}
    )
{%- endmacro %}

{# In full, rows are written in the order of time, for the scans of later builds. #}
{% macro in_time_order(column) -%}
    {{ '' if is_incremental() else 'order by ' ~ column }}
{%- endmacro %}

{# True of the rows of a raw table that were loaded since this model was built; in full, of all. #}
{% macro is_loaded_since() -%}
    {{ '_load_id > ' ~ built_load_id() if is_incremental() else 'true' }}
{%- endmacro %}
