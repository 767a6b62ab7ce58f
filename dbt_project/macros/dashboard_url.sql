{# The page of a PaymentIntent in Stripe's Dashboard. The address has the account's id, so the right account opens. #}
{% macro dashboard_url(payment_intent_id, relation='') -%}
    {%- set prefix = relation ~ '.' if relation else '' -%}
    'https://dashboard.stripe.com/' || {{ prefix }}account_id
    || case when {{ prefix }}livemode then '/payments/' else '/test/payments/' end || {{ payment_intent_id }}
{%- endmacro %}
