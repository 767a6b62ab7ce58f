{# The page of a PaymentIntent in Stripe's Dashboard. With the account's id, it opens in the right account. #}
{% macro dashboard_url(payment_intent_id, relation='') -%}
    {%- set prefix = relation ~ '.' if relation else '' -%}
    'https://dashboard.stripe.com/' || {{ prefix }}account_id
    || case when {{ prefix }}livemode then '/payments/' else '/test/payments/' end || {{ payment_intent_id }}
{%- endmacro %}
