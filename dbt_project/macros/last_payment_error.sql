{#
    A PaymentIntent's `last_payment_error` is in two raw tables: payment_failed events, and errors that listings showed.
    Both staging models use the same shape and the same columns.
#}
{% macro last_payment_error_shape() -%}
    {% set payment_method = {'id': 'varchar', 'type': 'varchar'} %}
    {% for type in card_types() %}
        {% do payment_method.update({type: card_shape()}) %}
    {% endfor %}
    {% do payment_method.update(bank_account_shapes()) %}
    {{ return({
        'type': 'varchar', 'code': 'varchar', 'decline_code': 'varchar', 'advice_code': 'varchar',
        'network_advice_code': 'varchar', 'network_decline_code': 'varchar', 'charge': 'varchar',
        'payment_method': payment_method
    }) }}
{%- endmacro %}

{% macro last_payment_error_columns(error) -%}
    {{ expandable_id(error ~ '.charge') }} as error_charge_id,
    {{ error }}.payment_method.id as error_payment_method_id,
    {{ error }}.type as error_type,
    {{ error }}.code as error_code,
    {{ error }}.decline_code as error_decline_code,
    {{ error }}.advice_code as error_advice_code,
    {{ error }}.network_advice_code as error_network_advice_code,
    {{ error }}.network_decline_code as error_network_decline_code,
    {{ error }}.payment_method.type as payment_method_type,
    {{ card_field(error ~ '.payment_method', 'brand') }} as card_brand,
    {{ card_field(error ~ '.payment_method', 'funding') }} as card_funding,
    {{ card_field(error ~ '.payment_method', 'country') }} as card_country,
    {{ card_field(error ~ '.payment_method', 'fingerprint') }} as card_fingerprint,
    {{ card_field(error ~ '.payment_method', 'wallet.type') }} as card_wallet,
    {{ bank_account_fingerprint(error ~ '.payment_method') }} as bank_account_fingerprint,
    {{ card_field(error ~ '.payment_method', 'exp_month') }} as card_exp_month,
    {{ card_field(error ~ '.payment_method', 'exp_year') }} as card_exp_year
{%- endmacro %}
