{#
    An amount in major units, exactly: 1234 with two decimals is 12.340. `exponent` is that of seed currencies. Null if the
    currency is not in the seed.
#}
{% macro major_amount(amount, exponent) -%}
    try_cast({{ amount }} as decimal(14, 0))
    * cast(case {{ exponent }} when 0 then 1.000 when 2 then 0.010 when 3 then 0.001 end as decimal(4, 3))
{%- endmacro %}
