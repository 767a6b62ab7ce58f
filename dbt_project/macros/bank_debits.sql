{# Stripe docs, delayed notification methods: the debits among them, which the payer's bank can take back. #}
{% macro bank_debits() -%}
    ('ach_debit', 'acss_debit', 'au_becs_debit', 'bacs_debit', 'nz_bank_account', 'sepa_debit', 'us_bank_account')
{%- endmacro %}
