{#
    The fields that name the order of a PaymentIntent, in order of precedence: metadata under the keys of var
    recovery_link_metadata_keys, the invoice, and payment_details.order_reference.
#}
{% macro order_fields() -%}
    {% set fields = [] %}
    {% for name in checked_var('recovery_link_metadata_keys') %}
        {% do fields.append((name, 'metadata_order_' ~ loop.index)) %}
    {% endfor %}
    {{ return(fields + [('invoice', 'invoice_id'), ('order_reference', 'order_reference')]) }}
{%- endmacro %}

{# Columns with the metadata values that may name an order. #}
{% macro metadata_order_columns(metadata) -%}
    {% for name in checked_var('recovery_link_metadata_keys') -%}
        nullif(trim({{ metadata }}."{{ name }}"), '') as metadata_order_{{ loop.index }},
    {% endfor %}
{%- endmacro %}

{#
    True if a text may name an order. Some software writes a placeholder if it has no order. Stripe Checkout fills in
    ids of its own objects, which many orders share. The only Stripe object that names a debt is an invoice (in_).
#}
{% macro may_name_order(text) -%}
    (
        lower({{ text }}) not in ('undefined', 'null', 'none', 'nil', 'nan', 'n/a', 'false', '-', '0', '')
        {%- for prefix in [
            'prod_', 'price_', 'plan_', 'plink_', 'sku_', 'cs_', 'sub_', 'si_', 'cus_', 'acct_', 'pi_', 'seti_', 'pm_', 'ch_',
            'py_'
        ] %}
            and not starts_with({{ text }}, '{{ prefix }}')
        {%- endfor %}
    )
{%- endmacro %}
