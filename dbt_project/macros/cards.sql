{# Payment method types that contain a card: typed in, saved or in a wallet (`card`), and cards at a terminal. #}
{% macro card_types() -%}
    {{ return(['card', 'card_present', 'interac_present']) }}
{%- endmacro %}

{# JSON shape of a card. #}
{% macro card_shape() -%}
    {{ return({
        'brand': 'varchar', 'network': 'varchar', 'funding': 'varchar', 'country': 'varchar', 'fingerprint': 'varchar',
        'exp_month': 'integer', 'exp_year': 'integer', 'wallet': {'type': 'varchar'}
    }) }}
{%- endmacro %}

{# A field of the card of a payment method, of any of these types. #}
{% macro card_field(method, field) -%}
    coalesce(
        {%- for type in card_types() -%}
            {{ method }}.{{ type }}.{{ field }}{{ ', ' if not loop.last }}
        {%- endfor -%}
    )
{%- endmacro %}
