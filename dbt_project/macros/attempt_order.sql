{#
    The order of the attempts of a PaymentIntent or an episode. Several attempts may have the same second. Then a
    success is last, since nothing is attempted after it. A failure with an estimated time comes after the charge that
    the estimate is from. The id makes the order the same in every build.
#}
{% macro attempt_order(of='') -%}
    {%- set prefix = of ~ '.' if of else '' -%}
    {{ prefix }}attempted_at,
    case when {{ prefix }}outcome = 'succeeded' then 1 else 0 end,
    {{ prefix }}is_attempted_at_estimated,
    {{ prefix }}attempt_id
{%- endmacro %}
