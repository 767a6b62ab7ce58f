{#
    The scope of seed decline_codes in which the code of an attempt is looked up first. int_decline_codes_scoped has a
    row for each code and scope. If the method is not known, it is taken as a card, since most such attempts are.
#}
{% macro code_scope(payment_method_type) -%}
    case
        when {{ payment_method_type }} is null or {{ payment_method_type }} in ('{{ card_types() | join("', '") }}')
            then 'card'
        when {{ payment_method_type }} in {{ bank_debits() }} then 'bank_debit'
        else 'local_payment_method'
    end
{%- endmacro %}
