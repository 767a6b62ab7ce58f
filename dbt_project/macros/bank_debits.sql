{# Stripe docs, delayed notification methods: the debits among them, which the payer's bank can take back. #}
{% macro bank_debit_types() -%}
    {{ return([
        'ach_debit', 'acss_debit', 'au_becs_debit', 'bacs_debit', 'nz_bank_account', 'sepa_debit', 'us_bank_account'
    ]) }}
{%- endmacro %}

{% macro bank_debits() -%}
    ('{{ bank_debit_types() | join("', '") }}')
{%- endmacro %}

{# Shape of the bank accounts in a charge's or an error's payment method, and the fingerprint of the one that is there. #}
{% macro bank_account_shapes() -%}
    {% set shapes = {} %}
    {% for type in bank_debit_types() %}
        {% do shapes.update({type: {'fingerprint': 'varchar'}}) %}
    {% endfor %}
    {{ return(shapes) }}
{%- endmacro %}

{% macro bank_account_fingerprint(method) -%}
    coalesce(
        {% for type in bank_debit_types() %}
            {{ method }}.{{ type }}.fingerprint{{ ',' if not loop.last }}
        {% endfor %}
    )
{%- endmacro %}
