{#
    Payment method types of bank debits, which the payer's bank can return (Stripe docs: delayed notification methods).
#}
{% macro bank_debit_types() -%}
    {{ return([
        'ach_debit', 'acss_debit', 'au_becs_debit', 'bacs_debit', 'nz_bank_account', 'sepa_debit', 'us_bank_account'
    ]) }}
{%- endmacro %}

{% macro bank_debits() -%}
    ('{{ bank_debit_types() | join("', '") }}')
{%- endmacro %}

{# JSON shape of the bank accounts in the payment method of a charge or an error. #}
{% macro bank_account_shapes() -%}
    {% set shapes = {} %}
    {% for type in bank_debit_types() %}
        {% do shapes.update({type: {'fingerprint': 'varchar'}}) %}
    {% endfor %}
    {{ return(shapes) }}
{%- endmacro %}

{# The fingerprint of the bank account of a payment method, of any type. #}
{% macro bank_account_fingerprint(method) -%}
    coalesce(
        {% for type in bank_debit_types() %}
            {{ method }}.{{ type }}.fingerprint{{ ',' if not loop.last }}
        {% endfor %}
    )
{%- endmacro %}
