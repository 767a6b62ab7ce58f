{#
    Manual capture: `payment_method_options.<type>.capture_method` for payments with a method of that type, otherwise
    `capture_method` of the PaymentIntent.
#}
{% macro payment_method_options_shape() -%}
    {{ return('map(varchar, struct(capture_method varchar))') }}
{%- endmacro %}

{# The payment method types whose options ask for manual capture. Terminals may also say `manual_preferred`. #}
{% macro types_captured_by_hand(options) -%}
    list_sort(list_filter(
        map_keys({{ options }}),
        lambda method_type: {{ options }}[method_type].capture_method in ('manual', 'manual_preferred')
    ))
{%- endmacro %}

{# True if the payment is captured manually. If the type of its method is unknown: true if any type is. #}
{% macro is_captured_by_hand(payment_intent, method_type) -%}
    coalesce(
        {{ payment_intent }}.capture_method = 'manual'
        or case
            when {{ method_type }} is null then len({{ payment_intent }}.types_captured_by_hand) > 0
            else list_contains({{ payment_intent }}.types_captured_by_hand, {{ method_type }})
        end,
        false
    )
{%- endmacro %}
