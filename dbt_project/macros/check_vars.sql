{#
    Every var of dbt_project.yml: its kind, and the minimum and maximum of a number. Models read vars with checked_var,
    so a wrong value raises a one-sentence message instead of an error of Python or SQL.
#}
{% macro var_rules() -%}
    {{ return({
        'recovery_window_days': ['integer', 0, 3650],
        'recovery_link_metadata_keys': ['keys'],
        'link_gap_days': ['integer', 0, 3650],
        'link_span_days': ['integer', 0, 3650],
        'guest_link_gap_days': ['integer', 0, 3650],
        'explicit_link_gap_days': ['integer', 0, 3650],
        'link_pause_seconds': ['integer', 0, 86400],
        'authentication_abandoned_after_hours': ['integer', 0, 87600],
        'reporting_time_zone': ['time_zone'],
        'network_fee_region': ['region'],
        'network_fee_country': ['country'],
        'card_testing_max_usd': ['number', 0, 1000000],
        'card_testing_window_minutes': ['integer', 1, 1440],
        'card_testing_card_count': ['integer', 1, 1000000],
        'card_testing_declined_share': ['number', 0, 1],
        'card_testing_tiny_max_usd': ['number', 0, 1000000],
        'card_testing_tiny_window_minutes': ['integer', 1, 1440],
        'card_testing_tiny_card_count': ['integer', 1, 1000000],
        'exclude_card_testing': ['boolean'],
        'recovery_retry_metadata_keys': ['keys'],
        'owner_name': ['text'],
        'owner_email': ['text'],
        'is_plan': ['boolean'],
        'fingerprint': ['text'],
    }) }}
{%- endmacro %}

{#
    The value of a var. A wrong value ends the build before the first model. While dbt only parses, a valid placeholder
    replaces it, so that Dagster can load its definitions and the run reports the error.
#}
{% macro checked_var(name) -%}
    {%- set value, rule = var(name), var_rules()[name] -%}
    {%- if is_var_valid(value, rule) -%}
        {{ return(value) }}
    {%- elif execute -%}
        {{ exceptions.raise_compiler_error(
            'The dbt var ' ~ name ~ ' must be ' ~ var_rule_text(rule) ~ '. It is ' ~ var_text(value) ~ '.'
        ) }}
    {%- endif -%}
    {{ return(rule[1] if rule[0] in ('integer', 'number') else {'keys': [], 'boolean': false}.get(rule[0], '')) }}
{%- endmacro %}

{% macro check_vars() -%}
    {%- for name in var_rules() -%}
        {%- do checked_var(name) -%}
    {%- endfor -%}
{%- endmacro %}

{% macro is_var_valid(value, rule) -%}
    {%- set kind = rule[0] -%}
    {%- if kind in ('integer', 'number') -%}
        {{ return(
            (value is integer or (kind == 'number' and value is float)) and rule[1] <= value and value <= rule[2]
        ) }}
    {%- elif kind == 'boolean' -%}
        {{ return(value is boolean) }}
    {%- elif kind == 'keys' -%}
        {{ return(are_metadata_keys(value)) }}
    {%- elif value is not string -%}
        {{ return(false) }}
    {%- elif kind == 'time_zone' -%}
        {{ return(value in modules.pytz.all_timezones_set) }}
    {%- elif kind == 'region' -%}
        {{ return(value in ('', 'br', 'ca', 'europe', 'us')) }}
    {%- elif kind == 'country' -%}
        {{ return(modules.re.fullmatch('([A-Z][A-Z])?', value) is not none) }}
    {%- endif -%}
    {{ return(true) }}
{%- endmacro %}

{# True for a list of different names. Names that differ only in case are the same name to DuckDB. #}
{% macro are_metadata_keys(value) -%}
    {%- if value is string or value is mapping or value is not iterable -%}
        {{ return(false) }}
    {%- endif -%}
    {%- set seen = [] -%}
    {%- for key in value -%}
        {%- if key is not string or not key.strip() or '"' in key or "'" in key or '\\' in key or key.lower() in seen -%}
            {{ return(false) }}
        {%- endif -%}
        {%- do seen.append(key.lower()) -%}
    {%- endfor -%}
    {{ return(true) }}
{%- endmacro %}

{% macro var_rule_text(rule) -%}
    {{ return({
        'integer': 'a whole number from ' ~ rule[1] ~ ' to ' ~ rule[2] ~ ', without quotes',
        'number': 'a number from ' ~ rule[1] ~ ' to ' ~ rule[2] ~ ', without quotes',
        'boolean': 'true or false, without quotes',
        'keys': 'a list of different names, such as [order_id, invoice_id], without quotation marks in them',
        'time_zone': 'the IANA name of a time zone, such as Europe/Berlin',
        'region': "br, ca, europe, us, or '' for none",
        'country': "two capital letters, such as 'US', or '' for none",
        'text': 'text',
    }[rule[0]]) }}
{%- endmacro %}

{# A value as JSON, so that "5" and 5 look different; at most 60 characters. #}
{% macro var_text(value) -%}
    {%- set text = tojson(value, none) or value | string -%}
    {{ return(text if text | length <= 60 else text[:59] ~ '…') }}
{%- endmacro %}
