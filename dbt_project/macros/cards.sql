{# Where a payment method keeps its card: cards that are typed in, saved or held in a wallet, and those at a terminal. #}
{% macro card_types() -%}
    {{ return(['card', 'card_present', 'interac_present']) }}
{%- endmacro %}

{% macro card_shape() -%}
    {{ return({
        'brand': 'varchar', 'network': 'varchar', 'funding': 'varchar', 'country': 'varchar', 'fingerprint': 'varchar',
        'exp_month': 'integer', 'exp_year': 'integer', 'wallet': {'type': 'varchar'}
    }) }}
{%- endmacro %}

{# A field of the card of a payment method, whichever of the types it has. #}
{% macro of_card(method, field) -%}
    coalesce(
        {%- for type in card_types() -%}
            {{ method }}.{{ type }}.{{ field }}{{ ', ' if not loop.last }}
        {%- endfor -%}
    )
{%- endmacro %}
