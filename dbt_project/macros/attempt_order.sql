{#
    The order of attempts, of a PaymentIntent and of an episode alike. Stripe's seconds tie: nothing is attempted after a
    success, and a failure whose time is estimated came later than the charge from which it was estimated; the id makes
    the order the same on every run.
#}
{% macro attempt_order(of='') -%}
    {%- set prefix = of ~ '.' if of else '' -%}
    {{ prefix }}attempted_at,
    case when {{ prefix }}outcome = 'succeeded' then 1 else 0 end,
    {{ prefix }}is_attempted_at_estimated,
    {{ prefix }}attempt_id
{%- endmacro %}
